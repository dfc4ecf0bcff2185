"""How a run learns: losses, gradient norms, the loss scale and the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vdsgen.report.run.curves import Points, line_figure, raw_and_smoothed, restart_marks, series
from vdsgen.report.run.subject import RunSubject
from vdsgen.report.section import Figure, Section
from vdsgen.runs.records import HeldOutLoss


def learning_section(subjects: Sequence[RunSubject]) -> Section:
    """Losses first; the loss scale only where there is one."""
    figures = [_loss(subjects), _held_out(subjects), _gradient_norm(subjects)]
    figures += [_loss_scale(subjects), _learning_rate(subjects)]
    return Section(
        id="learning",
        title="Learning",
        summary=[line for subject in subjects for line in _summary(subject)],
        figures=[figure for figure in figures if figure is not None],
    )


def _summary(subject: RunSubject) -> list[str]:
    steps = subject.data.steps
    known = [step.loss for step in steps if step.loss is not None]
    if not known:
        return [f"{subject.prefix}No step has a finite loss yet."]
    tenth = max(1, len(known) // 10)
    first, last = sum(known[:tenth]) / tenth, sum(known[-tenth:]) / tenth
    lines = [
        f"{subject.prefix}The loss went from {first:.4f} to {last:.4f} in {steps[-1].step:,} steps "
        "(means of the first and the last tenth)."
    ]
    for weights, found in _by_weights(subject).items():
        losses = [(line.loss, line.step) for line in found if line.loss is not None]
        if losses:
            best, step = min(losses)
            of = "" if weights == "trained" else f" of the {weights.upper()} weights"
            lines.append(
                f"{subject.prefix}On held-out clips the loss{of} is {losses[-1][0]:.4f}, at best "
                f"{best:.4f} after step {step:,}."
            )
    without = len(steps) - len(known)
    if without:
        lines.append(f"{subject.prefix}{without:,} steps have no finite loss.")
    return lines


def _by_weights(subject: RunSubject) -> dict[str, list[HeldOutLoss]]:
    found: dict[str, list[HeldOutLoss]] = {}
    for line in subject.data.held_out:
        found.setdefault(line.weights, []).append(line)
    return found


def _loss(subjects: Sequence[RunSubject]) -> Figure:
    curves = [
        one
        for subject in subjects
        for one in raw_and_smoothed(subject, "loss", lambda step: step.loss, several=len(subjects))
    ]
    return line_figure(
        "loss",
        "Training loss",
        curves,
        "number",
        "The loss of every step, and its exponential moving average.",
        name="loss",
        marks=restart_marks(subjects),
        wide=True,
        height_px=360,
        note="Smoothed: an exponential moving average whose half-life is a fortieth of the run.",
    )


def _held_out(subjects: Sequence[RunSubject]) -> Figure | None:
    curves: list[dict[str, Any]] = []
    for subject in subjects:
        for weights, found in _by_weights(subject).items():
            name = "held-out loss" if weights == "trained" else f"held-out loss, {weights.upper()}"
            curves.append(series(f"{subject.prefix}{name}", [(line.step, line.loss) for line in found]))
            curves += _quantiles(subject, found) if len(subjects) == 1 and weights == "trained" else []
    if not curves:
        return None
    return line_figure(
        "held-out-loss",
        "Loss on held-out clips",
        curves,
        "number",
        "The loss on clips that training does not see, at fixed noise levels; of one run also at the "
        "lowest and the highest of them.",
        name="loss",
        marks=restart_marks(subjects),
    )


def _quantiles(subject: RunSubject, found: Sequence[HeldOutLoss]) -> list[dict[str, Any]]:
    """At the lowest and the highest noise level."""
    curves = []
    quantiles = found[-1].quantiles
    if len(quantiles) < 2:
        return []
    for place, what in ((0, "least noise"), (len(quantiles) - 1, "most noise")):
        points: list[tuple[float, float | None]] = [
            (line.step, line.loss_by_quantile[place]) for line in found if place < len(line.loss_by_quantile)
        ]
        curves.append(series(f"{subject.prefix}at the {what}", points, quiet=True))
    return curves


def _gradient_norm(subjects: Sequence[RunSubject]) -> Figure:
    clipping = {
        subject.data.experiment.training.gradient_clipping
        for subject in subjects
        if subject.data.experiment is not None
    }
    limits = [{"at": value, "label": f"clipped at {value:g}"} for value in sorted(clipping) if value > 0]
    curves = [
        one
        for subject in subjects
        for one in raw_and_smoothed(subject, "norm", lambda step: step.grad_norm, several=len(subjects))
    ]
    return line_figure(
        "gradient-norm",
        "Gradient norm",
        curves,
        "exponent",
        "The norm of the whole model's gradient before clipping, on a logarithmic axis.",
        name="norm",
        marks=restart_marks(subjects),
        limits=limits,
        log=True,
    )


def _loss_scale(subjects: Sequence[RunSubject]) -> Figure | None:
    """Of fp16 runs, with their overflows: they stand on the curve, at the scale that was too large."""
    curves: list[dict[str, Any]] = []
    for subject in subjects:
        steps = subject.data.steps
        if all(step.loss_scale in (1.0, None) for step in steps):
            continue
        scale = [(step.step, step.loss_scale) for step in steps]
        curves.append(
            series(
                f"{subject.prefix}loss scale",
                scale,
                colour=subject.number,
                dash=subject.number,
                step=True,
            )
        )
        overflows: Points = [(step.step, step.loss_scale) for step in steps if step.overflow]
        if overflows:
            curves.append(
                series(
                    f"{subject.prefix}{len(overflows)} overflows: steps skipped",
                    overflows,
                    colour="bad",
                    points_only=True,
                )
            )
    if not curves:
        return None
    return line_figure(
        "loss-scale",
        "fp16 loss scale",
        curves,
        "exponent",
        "The loss scale of every step; dots are steps whose gradients overflowed and that were skipped.",
        name="scale",
        marks=restart_marks(subjects),
        log=True,
    )


def _learning_rate(subjects: Sequence[RunSubject]) -> Figure:
    curves = [
        series(
            f"{subject.prefix}learning rate",
            [(step.step, step.learning_rate) for step in subject.data.steps],
            colour=subject.number,
            dash=subject.number,
        )
        for subject in subjects
    ]
    return line_figure(
        "learning-rate",
        "Learning rate",
        curves,
        "exponent",
        "The learning rate that every step was made with.",
        name="learning rate",
        marks=restart_marks(subjects),
    )
