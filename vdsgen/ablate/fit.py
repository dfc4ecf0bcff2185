"""What measured steps say about the time model: a few factors, no more than the number of plans bears."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from vdsgen.ablate.nonnegative import nonnegative_least_squares
from vdsgen.ablate.records import Result
from vdsgen.ablate.statistics import relative_error, root_mean_square
from vdsgen.spec.step_factors import StepFactors

COMPUTE_PARTS = ("compute_seconds", "bubble_seconds")
"""Both scale with the speed of layers: a bubble is other stages' computing."""
RECOMPUTE_PARTS = ("recompute_seconds",)
COMMUNICATION_PARTS = (
    "transfer_seconds",
    "reduction_seconds",
    "gather_seconds",
    "offload_seconds",
    "tensor_seconds",
    "sequence_seconds",
)
OPTIMIZER_PARTS = ("optimizer_seconds",)

LEAST_PLANS = {1: 1, 2: 4, 3: 6, 4: 8}
"""Plans that it takes to fit so many numbers."""
MUST_IMPROVE_BY = 0.25
"""A fit with more numbers is taken where it predicts plans that it has not seen so much better."""
LARGEST_RATIO = 30.0
"""Of two factors of one fit. Beyond it a part hardly occurs in the plans, or the model has the wrong parts;
neither is to be carried over to other plans."""


class Measurement(NamedTuple):
    """One plan: the parts of its step as the time model has them, and the step as it was measured."""

    compute_seconds: float
    communication_seconds: float
    optimizer_seconds: float
    measured_seconds: float
    """Without waiting for clips, which the time model has no part for."""
    recompute_seconds: float = 0.0

    def predicted_seconds(self, factors: StepFactors) -> float:
        return (
            factors.compute_factor * self.compute_seconds
            + factors.recompute_factor * self.recompute_seconds
            + factors.communication_factor * self.communication_seconds
            + factors.optimizer_factor * self.optimizer_seconds
            + factors.overhead_seconds
        )

    def error(self, factors: StepFactors) -> float:
        """Relative; positive where too much is predicted."""
        return relative_error(self.predicted_seconds(factors), self.measured_seconds)


class Fit(NamedTuple):
    """Factors, and how well they do."""

    factors: StepFactors
    form: str
    """What was fitted, in words."""
    plans: int
    errors_before: tuple[float, ...]
    """Relative error of each plan's step without factors."""
    errors: tuple[float, ...]
    """With factors, on the plans that they were fitted to."""
    held_out_errors: tuple[float, ...]
    """Of each plan by factors fitted to all others; empty where there is one plan."""


class _Form(NamedTuple):
    """A way to explain steps: sums of parts, each with a factor of its own."""

    words: str
    unknowns: tuple[str, ...]
    columns: Callable[[Measurement], tuple[float, ...]]
    factors: Callable[[Sequence[float]], Mapping[str, float]]


def _all_parts(one: Measurement) -> float:
    return _forwards_and_backwards(one) + one.communication_seconds + one.optimizer_seconds


def _forwards_and_backwards(one: Measurement) -> float:
    return one.compute_seconds + one.recompute_seconds


def _beside_compute(one: Measurement) -> float:
    return one.communication_seconds + one.optimizer_seconds


def _factors(
    compute: float,
    communication: float,
    optimizer: float,
    overhead: float = 0.0,
    *,
    recompute: float | None = None,
) -> dict[str, float]:
    """Recomputation counts as computing where it has no factor of its own."""
    return {
        "compute_factor": compute,
        "recompute_factor": compute if recompute is None else recompute,
        "communication_factor": communication,
        "optimizer_factor": optimizer,
        "overhead_seconds": overhead,
    }


FORMS = (
    _Form("one factor", ("factor",), lambda one: (_all_parts(one),), lambda x: _factors(x[0], x[0], x[0])),
    _Form(
        "one factor, and a fixed overhead",
        ("factor", "overhead"),
        lambda one: (_all_parts(one), 1.0),
        lambda x: _factors(x[0], x[0], x[0], x[1]),
    ),
    _Form(
        "a factor on computing, one on the rest",
        ("compute", "rest"),
        lambda one: (_forwards_and_backwards(one), _beside_compute(one)),
        lambda x: _factors(x[0], x[1], x[1]),
    ),
    _Form(
        "a factor on recomputation, one on the rest",
        ("rest", "recompute"),
        lambda one: (_all_parts(one) - one.recompute_seconds, one.recompute_seconds),
        lambda x: _factors(x[0], x[0], x[0], recompute=x[1]),
    ),
    _Form(
        "a factor on computing, recomputation and the rest",
        ("compute", "recompute", "rest"),
        lambda one: (one.compute_seconds, one.recompute_seconds, _beside_compute(one)),
        lambda x: _factors(x[0], x[2], x[2], recompute=x[1]),
    ),
    _Form(
        "a factor on recomputation, one on the rest, and a fixed overhead",
        ("rest", "recompute", "overhead"),
        lambda one: (_all_parts(one) - one.recompute_seconds, one.recompute_seconds, 1.0),
        lambda x: _factors(x[0], x[0], x[0], x[2], recompute=x[1]),
    ),
    _Form(
        "a factor on computing, one on the rest, and a fixed overhead",
        ("compute", "rest", "overhead"),
        lambda one: (_forwards_and_backwards(one), _beside_compute(one), 1.0),
        lambda x: _factors(x[0], x[1], x[1], x[2]),
    ),
    _Form(
        "a factor on computing, communication and optimizer",
        ("compute", "communication", "optimizer"),
        lambda one: (_forwards_and_backwards(one), one.communication_seconds, one.optimizer_seconds),
        lambda x: _factors(*x),
    ),
    _Form(
        "a factor on computing, communication and optimizer, and a fixed overhead",
        ("compute", "communication", "optimizer", "overhead"),
        lambda one: (_forwards_and_backwards(one), one.communication_seconds, one.optimizer_seconds, 1.0),
        lambda x: _factors(*x),
    ),
)


def fit_factors(measurements: Sequence[Measurement]) -> Fit | None:
    """The simplest form that predicts left-out plans about as well as any; None where there is no plan.

    Non-negative least squares of relative errors: each plan counts alike, whatever its step takes. Forms are
    tried from the fewest unknowns on, as far as LEAST_PLANS allows.
    """
    if not measurements:
        return None
    best: Fit | None = None
    for form in FORMS:
        if len(measurements) < LEAST_PLANS[len(form.unknowns)]:
            continue
        fit = _fit(form, measurements)
        if fit is not None and (best is None or _predicts_better(fit, best)):
            best = fit
    return best


def _predicts_better(fit: Fit, other: Fit) -> bool:
    found, before = root_mean_square(fit.held_out_errors), root_mean_square(other.held_out_errors)
    return found < (1 - MUST_IMPROVE_BY) * before


def _fit(form: _Form, measurements: Sequence[Measurement]) -> Fit | None:
    """None where the plans do not tell the form's unknowns apart."""
    factors = _solve(form, measurements)
    if factors is None:
        return None
    held_out: list[float] = []
    for index, left_out in enumerate(measurements):
        others = [*measurements[:index], *measurements[index + 1 :]]
        partial = _solve(form, others) if others else None
        if others and partial is None:
            return None
        if partial is not None:
            held_out.append(left_out.error(partial))
    return Fit(
        factors=factors,
        form=form.words,
        plans=len(measurements),
        errors_before=tuple(one.error(StepFactors()) for one in measurements),
        errors=tuple(one.error(factors) for one in measurements),
        held_out_errors=tuple(held_out),
    )


def _solve(form: _Form, measurements: Sequence[Measurement]) -> StepFactors | None:
    rows = [[part / one.measured_seconds for part in form.columns(one)] for one in measurements]
    solution = nonnegative_least_squares(list(zip(*rows, strict=True)), [1.0] * len(rows))
    values = form.factors(solution)
    overhead = values["overhead_seconds"]
    factors = [value for key, value in values.items() if key != "overhead_seconds"]
    if min(factors) <= 0 or max(factors) > LARGEST_RATIO * min(factors):
        return None
    if "overhead" in form.unknowns and overhead == 0:
        return None  # the form without it says the same
    return StepFactors(**{key: float(f"{value:.4g}") for key, value in values.items()})


def measurement_of(result: Result) -> Measurement | None:
    """None for what a fit cannot use: no figures, or figures of another plan than was predicted for."""
    if result.status != "ok" or result.measured is None or result.plan.edited:
        return None
    parts = result.plan.predicted.parts_seconds

    def total(names: Sequence[str]) -> float:
        return sum(parts.get(name, 0.0) for name in names)

    return Measurement(
        compute_seconds=total(COMPUTE_PARTS),
        communication_seconds=total(COMMUNICATION_PARTS),
        optimizer_seconds=total(OPTIMIZER_PARTS),
        measured_seconds=result.measured.step_seconds - result.measured.data_wait_seconds,
        recompute_seconds=total(RECOMPUTE_PARTS),
    )
