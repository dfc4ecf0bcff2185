"""A frame in words: each figure with what it is measured by. Widths are cells of a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from vdsgen.launch.progress import duration
from vdsgen.planner.words import percent, rate, seconds
from vdsgen.runs.memory import RankMemory
from vdsgen.runs.notices import Notice
from vdsgen.runs.state import State
from vdsgen.runs.words import size_words
from vdsgen.watch.frame import Frame

STATE_WORDS: dict[State, str] = {
    "waiting": "waiting for the run to start",
    "starting": "starting",
    "running": "running",
    "silent": "no sign of life",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
}
CURVE_WORDS = {
    "loss": "loss",
    "held_out_loss": "held-out loss",
    "gradient_norm": "gradient norm",
    "learning_rate": "learning rate",
    "loss_scale": "loss scale",
    "samples_per_second": "samples/s",
}
UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure."""

    label: str
    value: str
    beside: str = ""
    """What it is measured by, or more of it."""
    curve: str | None = None
    """The name of its curve."""


def rows_of(frame: Frame) -> list[Row]:
    """Every figure, in the order of a glance."""
    return [row for row in (*_losses(frame), *_speed(frame), _checkpoint(frame)) if row is not None]


def _losses(frame: Frame) -> list[Row | None]:
    loss = frame.curves.get("loss")
    held_out = frame.curves.get("held_out_loss")
    best = frame.best_held_out
    scale = frame.curves.get("loss_scale")
    overflows = "" if frame.overflows is None else f"{counted(frame.overflows, 'overflow')}"
    smooth = None if loss is None else loss.last_smooth
    return [
        Row(
            "loss",
            UNKNOWN if loss is None else figure(loss.values[-1]),
            "" if smooth is None else f"{figure(smooth)} smoothed",
            "loss",
        ),
        None
        if held_out is None
        else Row(
            "held-out loss",
            figure(held_out.last),
            "" if best is None else f"best {figure(best[1])} at step {best[0]}",
            "held_out_loss",
        ),
        _plain(frame, "gradient_norm"),
        _plain(frame, "learning_rate"),
        None if scale is None else Row("loss scale", figure(scale.last), overflows, "loss_scale"),
    ]


def _plain(frame: Frame, name: str) -> Row | None:
    curve = frame.curves.get(name)
    if curve is None:
        return None
    value = curve.values[-1]
    smooth = curve.last_smooth
    return Row(
        CURVE_WORDS[name],
        value_words(name, value),
        "" if smooth is None else f"{figure(smooth)} smoothed",
        name,
    )


def _speed(frame: Frame) -> list[Row | None]:
    now = frame.standing
    predicted, planned_rate = frame.predicted_step_seconds, frame.predicted_samples_per_second
    step = now.step_seconds
    if step is None:
        expected = [] if predicted is None else [Row("step time", UNKNOWN, f"predicted {seconds(predicted)}")]
        return [*expected]
    ratio = f"{step / predicted:.2f} x the predicted {seconds(predicted)}" if predicted else ""
    bubble = ""
    if frame.bubble_fraction is not None and frame.predicted_bubble_fraction is not None:
        bubble = f"predicted {percent(frame.predicted_bubble_fraction)}"
    return [
        Row("step time", seconds(step), ratio),
        Row(
            "samples/s",
            UNKNOWN if frame.samples_per_second is None else rate(frame.samples_per_second),
            f"predicted {rate(planned_rate)}" if planned_rate else "",
            "samples_per_second",
        ),
        None
        if frame.flops_utilization is None
        else Row(
            "utilisation", percent(frame.flops_utilization), "of the GPUs' peak, for the model's own work"
        ),
        None
        if frame.data_wait_fraction is None
        else Row("data wait", percent(frame.data_wait_fraction), "of a step: waiting for clips"),
        None if frame.bubble_fraction is None else Row("bubble", percent(frame.bubble_fraction), bubble),
    ]


def _checkpoint(frame: Frame) -> Row | None:
    saved = frame.saved
    following = ""
    if saved.next_step is not None:
        until = "" if saved.next_seconds is None else f", in {duration(saved.next_seconds)}"
        following = f"next after step {saved.next_step}{until}"
    if saved.step is None:
        return Row("checkpoint", "none yet", following) if frame.standing.state != "waiting" else None
    size = "" if saved.size_bytes is None else f"{size_words(saved.size_bytes)}"
    return Row("checkpoint", f"step {saved.step}", following or size)


def value_words(name: str, value: float | None) -> str:
    """Of a curve."""
    return f"{value:.2e}" if name == "learning_rate" and value else figure(value)


def figure(value: float | None) -> str:
    """Four figures; never in the way of a column."""
    if value is None:
        return "no number"
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 10:
        return f"{value:.4f}"
    return f"{value:,.4g}" if 0.01 <= abs(value) < 1e6 else f"{value:.3g}"


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def progress_words(frame: Frame) -> str:
    """`step 73 of 160   46 %   1m 12s left`."""
    now = frame.standing
    if now.steps is None:
        return f"step {now.step}" if now.step else ""
    share = f"{100 * min(1.0, now.step / max(1, now.steps)):.0f} %"
    left = "" if now.seconds_left is None else f"   {duration(now.seconds_left)} left"
    return f"step {now.step:,} of {now.steps:,}   {share}{left}"


def state_words(frame: Frame) -> str:
    """`running: step 12 (backward)`."""
    now = frame.standing
    why = f": {now.why}" if now.why and now.state not in ("waiting", "silent") else ""
    return STATE_WORDS[now.state] + why


def restart_words(frame: Frame) -> str:
    if not frame.restarts:
        return ""
    why = f", last because {frame.last_failure}" if frame.last_failure else ""
    return f"{counted(frame.restarts + 1, 'start')}{why}"


def memory_lines(memory: tuple[RankMemory, ...], most: int) -> list[str]:
    """A head and a line a rank; where they are more than `most`, the fullest rank of each stage, and of these
    the fullest."""
    if not memory:
        return []
    shown, left = list(memory), 0
    if len(shown) > most:
        fullest: dict[int | None, RankMemory] = {}
        for rank in shown:
            if rank.stage not in fullest or rank.measured_bytes > fullest[rank.stage].measured_bytes:
                fullest[rank.stage] = rank
        order = sorted(fullest.values(), key=lambda rank: -(rank.ratio or rank.measured_bytes))
        shown, left = sorted(order[:most], key=lambda rank: rank.rank), len(memory) - min(most, len(order))
    lines = [f"{'memory':20}{'measured':>11}{'planned':>11}{'':>8}{'capacity':>11}"]
    for rank in shown:
        stage = "" if rank.stage is None else f"  stage {rank.stage}"
        name = f"  rank {rank.rank}{stage}"
        planned, capacity = (
            UNKNOWN if value is None else size_words(value)
            for value in (rank.planned_bytes, rank.capacity_bytes)
        )
        ratio = "" if rank.ratio is None else f"x {rank.ratio:.2f}"
        lines.append(f"{name:20}{size_words(rank.measured_bytes):>11}{planned:>11}{ratio:>8}{capacity:>11}")
    if left:
        lines.append(f"  and {left} more: of each stage, the rank that needs most")
    return lines


def stage_lines(frame: Frame) -> list[str]:
    """Where each stage's seconds go: planned / measured where the plan says."""
    if not frame.stages:
        return []
    lines = [
        f"{'a step, by stage':18}{'forward':>18}{'backward':>18}{'bubble':>9}{'messages':>10}"
        f"{'optimizer':>11}{'data':>9}"
    ]
    for stage in frame.stages:
        own = stage.seconds
        pairs = [
            f"{UNKNOWN if planned is None else seconds(planned)} / {seconds(found)}"
            for planned, found in (
                (stage.planned_forward_seconds, own["forward"]),
                (stage.planned_backward_seconds, own["backward"]),
            )
        ]
        messages = own["transfer"] + own["reduce"] + own["gather"]
        lines.append(
            f"{f'  stage {stage.stage}':18}{pairs[0]:>18}{pairs[1]:>18}{seconds(own['bubble']):>9}"
            f"{seconds(messages):>10}{seconds(own['optimizer']):>11}{seconds(own['data']):>9}"
        )
    return [*lines, "  forward and backward: predicted / measured; messages: transfer, reduction, gathering"]


def notice_words(notice: Notice) -> str:
    """One sentence, with what to do."""
    remedy = f" -> {notice.remedy}" if notice.remedy else ""
    return f"{notice.message}{remedy}"
