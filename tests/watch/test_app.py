"""The view in a terminal, driven by keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.runs.directories import add, beats, log, metrics_line, write_run
from tests.runs.test_reader import HOSTILE
from vdsgen.runs.reader import RunReader
from vdsgen.watch.frame import Watcher
from vdsgen.watch.window import Window

pytest.importorskip("textual_plotext")

from textual.pilot import Pilot

from vdsgen.watch.app import WatchApp


def screen(app: WatchApp) -> str:
    """What a person sees."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


async def settled(pilot: Pilot[None], *keys: str) -> str:
    await pilot.press(*keys)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()
    await pilot.pause()
    app = pilot.app
    assert isinstance(app, WatchApp)
    return screen(app)


def on(
    run: Path, size: tuple[int, int], act: Callable[[WatchApp, Pilot[None]], Coroutine[Any, Any, None]]
) -> None:
    """`act` on the view of a run, which looks again only when it is told to."""

    async def view() -> None:
        app = WatchApp(Watcher(RunReader(run)), every_seconds=3600)
        async with app.run_test(size=size) as pilot:
            await settled(pilot)
            await act(app, pilot)

    asyncio.run(view())


def test_a_small_terminal_has_all_figures_and_grows_with_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    beats(run)
    log(run, 0, "[vdsgen] Training 1 parameter.\n")

    async def act(app: WatchApp, pilot: Pilot[None]) -> None:
        shown = screen(app).splitlines()
        assert len(shown) == 24 and max(map(len, shown)) <= 80
        assert "running: step 30 (backward)" in shown[0]
        assert "step 30 of 100   30 %   1m 11s left" in shown[1]
        text = "\n".join(shown)
        for words in ("1.00 x the predicted 998 ms", "next after step 50, in 20s", "rank 3  stage 1", "▇"):
            assert words in text
        add(run, "metrics", metrics_line(31))
        app._look_again()
        assert "step 31 of 100" in await settled(pilot)
        await settled(pilot, "p")
        assert "PAUSED" in screen(app)
        add(run, "metrics", metrics_line(32))
        app._look_again()
        assert "step 31 of 100" in await settled(pilot), "paused"
        await settled(pilot, "p")
        app._look_again()
        assert "step 32 of 100" in await settled(pilot)

    on(run, (80, 24), act)


def test_views_curves_and_help_by_keys(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=90)
    add(run, "alarms", {"kind": "loss_spike", "step": 12, "message": "step 12: it jumped", "remedy": "look"})
    log(run, 2, "ValueError: the end\n")

    async def act(app: WatchApp, pilot: Pilot[None]) -> None:
        assert "loss 0.8" in screen(app), "a wide terminal has curves at once"
        text = await settled(pilot, "tab")
        assert "learning rate 1.00e-03" in text and "held-out loss" in text
        assert "loss scale" not in text, "bf16 has none"
        await settled(pilot, "up", "up")
        assert app.window == Window(0.25, 0.0)
        await settled(pilot, "left")
        assert app.window == Window(0.25, 0.125)
        await settled(pilot, "right", "right", "down", "0")
        assert app.window == Window()
        assert ", log" in await settled(pilot, "l")
        text = await settled(pilot, "3")
        assert "a step, by stage" in text and "planned" in text
        assert "step 12: it jumped -> look" in await settled(pilot, "4")
        assert "2 ValueError: the end" in await settled(pilot, "5")
        await settled(pilot, "question_mark")
        assert len(app.screen_stack) == 2
        assert "logarithmic" in screen(app)
        await settled(pilot, "x")
        assert len(app.screen_stack) == 1, "any key closes it"
        await pilot.press("q")
        assert app._exit

    on(run, (140, 40), act)


def test_what_files_say_is_neither_markup_nor_an_escape(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    beats(run)
    log(run, 0, f"[vdsgen] {HOSTILE}\n")
    add(run, "alarms", {"kind": "x", "step": 12, "message": HOSTILE, "remedy": "[@click=app.quit]x[/]"})

    async def act(app: WatchApp, pilot: Pilot[None]) -> None:
        for key in ("1", "4", "5"):
            text = await settled(pilot, key)
            assert all(character.isprintable() or character == "\n" for character in text)
            assert "\\x1b]0;owned\\x07[bold red]\\u202e" in text

    on(run, (100, 30), act)


def test_a_run_that_has_not_started_is_waited_for(tmp_path: Path) -> None:
    run = tmp_path / "run"

    async def act(app: WatchApp, pilot: Pilot[None]) -> None:
        assert "waiting for the run to start" in screen(app)
        write_run(run)
        beats(run)
        app._look_again()
        assert "running" in await settled(pilot)

    on(run, (80, 24), act)


def test_a_window_stays_within_the_run() -> None:
    window = Window().nearer().nearer()
    assert window.bounds(100) == (75, 100)
    assert window.earlier().bounds(100) == (63, 88)
    for _ in range(20):
        window = window.earlier()
    assert window.bounds(100) == (0, 25)
    assert window.wider().bounds(100) == (0, 50)
    assert Window(2.0**-20).bounds(100) == (96, 100), "a few points stay"
    assert Window().bounds(0) == (0, 0)


def test_any_number_is_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=3)
    extremes = (1e38, -1e38, 1e-40, 0, None)
    lines = [metrics_line(4 + place, loss=value, grad_norm=value) for place, value in enumerate(extremes)]
    add(run, "metrics", *lines, metrics_line(9, loss=None, samples_per_second=1e38))
    beats(run)

    async def act(app: WatchApp, pilot: Pilot[None]) -> None:
        assert "no number" in screen(app)
        for keys in (("2",), ("l",), ("up",), ("up", "up", "up", "left")):
            assert "gradient norm" in await settled(pilot, *keys)

    on(run, (130, 40), act)
