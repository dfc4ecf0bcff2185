"""The view in a terminal."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static, TabbedContent, TabPane

from vdsgen.watch.curves import CURVES
from vdsgen.watch.frame import Frame, Watcher
from vdsgen.watch.paint import alarm_text, figures_text, head_text, log_text, ranks_text
from vdsgen.watch.plot import CurvePlot
from vdsgen.watch.window import Window

WIDE = 118
"""Cells from which the figures have curves beside them."""
TALL = 38
"""Rows from which all curves have room side by side."""
VIEWS = ("overview", "curves", "ranks", "alarms", "log")
HELP = """\
1 to 5, tab        the view: overview, curves, ranks, alarms, log
up, +              curves: nearer, half as many steps
down, -            curves: wider, twice as many
left, right        curves: earlier, later; at the right end they go with the run
0                  curves: all steps
l                  curves: logarithmic, or not
p                  pause: the screen stays as it is, the run goes on
q                  leave; the run goes on

Nothing is written into the run directory. Figures: docs/watch.md.
Any key closes this."""


class Help(ModalScreen[None]):
    """The keys."""

    def compose(self) -> ComposeResult:
        yield Static(Text(HELP), id="help")

    def on_key(self) -> None:
        self.dismiss()


class WatchApp(App[None]):
    """One run."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "vdsgen watch"
    CSS_PATH = "watch.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("p", "pause", "pause"),
        Binding("tab", "next_view(1)", "view", key_display="tab", priority=True),
        Binding("shift+tab", "next_view(-1)", show=False, priority=True),
        *(Binding(str(number), f"view('{name}')", show=False) for number, name in enumerate(VIEWS, start=1)),
        Binding("up,+,plus", "window('nearer')", "zoom", key_display="↑↓", priority=True),
        Binding("down,-,minus", "window('wider')", show=False, priority=True),
        Binding("left", "window('earlier')", "move", key_display="←→", priority=True),
        Binding("right", "window('later')", show=False, priority=True),
        Binding("0,home", "all_steps", "all steps", key_display="0"),
        Binding("l", "logarithmic", "log"),
        Binding("question_mark", "help", "help", key_display="?"),
    ]

    def __init__(self, watcher: Watcher, *, every_seconds: float = 1.0) -> None:
        super().__init__()
        self._watcher = watcher
        self._every_seconds = every_seconds
        self._looking = False
        self.paused = False
        self.window = Window()
        self.logarithmic = False
        self.frame: Frame | None = None

    def compose(self) -> ComposeResult:
        yield Static("Reading the run directory.", id="head")
        with TabbedContent(id="views"):
            with TabPane("1 overview", id="overview"), Horizontal():
                with VerticalScroll(id="glance", can_focus=False):
                    yield Static(id="figures")
                    yield Static(id="glance-ranks")
                    yield Static(id="glance-alarms")
                    yield Static(id="glance-log")
                with Vertical(id="beside"):
                    for name in ("loss", "gradient_norm", "samples_per_second"):
                        yield CurvePlot(name, id=f"beside-{name}")
            with TabPane("2 curves", id="curves"), VerticalScroll(), Grid(id="grid"):
                for name in CURVES:
                    yield CurvePlot(name, id=f"curve-{name}")
            with TabPane("3 ranks", id="ranks"), VerticalScroll():
                yield Static(id="all-ranks")
            with TabPane("4 alarms", id="alarms"), VerticalScroll():
                yield Static(id="all-alarms")
            with TabPane("5 log", id="log"), VerticalScroll(id="log-scroll"):
                yield Static(id="all-log")
        yield Footer()

    def on_mount(self) -> None:
        self._look()
        self.set_interval(self._every_seconds, self._look_again)

    def _look_again(self) -> None:
        # A file system that hangs keeps one look waiting, not one a second.
        if not self.paused and not self._looking:
            self._look()

    @work(thread=True, exit_on_error=True)
    def _look(self) -> None:
        self._looking = True
        try:
            frame = self._watcher.look()
        finally:
            self._looking = False
        self.call_from_thread(self.show, frame)

    def show(self, frame: Frame) -> None:
        self.frame = frame
        self._draw()

    def on_resize(self) -> None:
        self.set_class(self.size.width >= WIDE, "wide")
        self.set_class(self.size.height >= TALL and self.size.width >= WIDE, "tall")
        self.call_after_refresh(self._draw)

    def on_tabbed_content_tab_activated(self) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        frame = self.frame
        if frame is None:
            return
        width = self.size.width
        self._put("#head", head_text(frame, width, paused=self.paused))
        wide = width >= WIDE
        room = max(20, self.query_one("#glance").size.width - 2)
        self._put("#figures", figures_text(frame, room, curves=not wide))
        self._put("#glance-ranks", ranks_text(frame, room, most=4, stages=False))
        self._put("#glance-alarms", alarm_text(frame, most=3))
        self._put("#glance-log", log_text(frame, most=4))
        self._put("#all-ranks", ranks_text(frame, width, most=10_000, stages=True))
        self._put("#all-alarms", alarm_text(frame, most=1_000))
        self._put("#all-log", log_text(frame, most=400))
        for plot in self.query(CurvePlot):
            curve = frame.curves.get(plot.curve_name)
            plot.display = curve is not None or plot.curve_name == "loss"
            plot.show(curve, self.window, logarithmic=self.logarithmic)

    def _put(self, where: str, text: Text) -> None:
        widget = self.query_one(where, Static)
        widget.update(text)
        widget.display = bool(text.plain)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Under the help, keys only close it."""
        return action == "quit" or not isinstance(self.screen, Help)

    def action_pause(self) -> None:
        self.paused = not self.paused
        self._draw()

    def action_view(self, name: str) -> None:
        self.query_one(TabbedContent).active = name

    def action_next_view(self, by: int) -> None:
        views = self.query_one(TabbedContent)
        views.active = VIEWS[(VIEWS.index(views.active) + by) % len(VIEWS)]

    def action_window(self, how: str) -> None:
        if self._scrolls():
            self._scroll(how)
            return
        self.window = getattr(self.window, how)()
        self._draw()

    def _scrolls(self) -> bool:
        """Up and down belong to what is longer than the screen, in the views that have no curves."""
        return self.query_one(TabbedContent).active in ("ranks", "alarms", "log")

    def _scroll(self, how: str) -> None:
        pane = self.query_one(f"#{self.query_one(TabbedContent).active}", TabPane)
        inside = pane.query_one(VerticalScroll)
        {
            "nearer": inside.scroll_up,
            "wider": inside.scroll_down,
            "earlier": inside.scroll_page_up,
            "later": inside.scroll_page_down,
        }[how](animate=False)

    def action_all_steps(self) -> None:
        self.window = Window()
        self._draw()

    def action_logarithmic(self) -> None:
        self.logarithmic = not self.logarithmic
        self._draw()

    def action_help(self) -> None:
        self.push_screen(Help())
