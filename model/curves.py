"""The loss curve as a picture, and as two numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vdsgen.model.metrics import read_metrics
from vdsgen.model.validation import read_validation

LOSS_CURVE = "loss.png"
SMOOTHING_SHARE = 0.1
"""Share of the run that the first and the last loss are means over: single steps see few clips and noise
levels, and scatter."""


def first_and_last(losses: Sequence[float]) -> tuple[float, float]:
    """Means over the first and the last tenth of the steps, one step at least."""
    window = max(1, round(len(losses) * SMOOTHING_SHARE))
    return sum(losses[:window]) / window, sum(losses[-window:]) / window


def smoothed(losses: Sequence[float]) -> list[float]:
    """Running mean over the last tenth of the run's length, shorter at the beginning."""
    window = max(1, round(len(losses) * SMOOTHING_SHARE))
    means = []
    total = 0.0
    for index, loss in enumerate(losses):
        total += loss - (losses[index - window] if index >= window else 0.0)
        means.append(total / min(index + 1, window))
    return means


def draw_loss(run: Path) -> None:
    """Writes RUN/loss.png from the run's metrics: each step's loss, the running mean, and held-out losses
    where there are some. The vertical axis is logarithmic where that shows more (the highest loss is ten
    times the lowest)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    points = [(m["step"], m["loss"]) for m in read_metrics(run) if m["loss"] is not None]
    steps, losses = [step for step, _ in points], [loss for _, loss in points]
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(steps, losses, color="#9db8d2", linewidth=1, label="each step")
    axes.plot(steps, smoothed(losses), color="#1f4e79", linewidth=2, label="running mean")
    for weights, style in (("trained", "o-"), ("ema", "s--")):
        held_out = [line for line in read_validation(run) if line["weights"] == weights and line["loss"]]
        if held_out:
            label = "held-out clips" + ("" if weights == "trained" else f", {weights.upper()} weights")
            found = [line["loss"] for line in held_out]
            axes.plot([line["step"] for line in held_out], found, style, markersize=4, label=label)
            losses = losses + found
    if losses and min(losses) > 0 and max(losses) > 10 * min(losses):
        axes.set_yscale("log")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (mean squared error)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(run / LOSS_CURVE, dpi=120)
    pyplot.close(figure)
