"""Factors from steps: found where the plans tell them apart, and no more of them than the plans bear."""

from __future__ import annotations

import random

import pytest

from tests.ablate.results import ablation, entry, failed, ran
from vdsgen.ablate.calibration import calibration_text, fit_sentences, worth_writing
from vdsgen.ablate.fit import Fit, Measurement, fit_factors, measurement_of
from vdsgen.ablate.results import results_of
from vdsgen.ablate.statistics import root_mean_square
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.step_factors import StepFactors

TRUE = StepFactors(
    compute_factor=1.6,
    recompute_factor=1.6,
    communication_factor=3.0,
    optimizer_factor=0.7,
    overhead_seconds=0.05,
)


def machine(
    plans: int, *, noise: float = 0.0, seed: int = 0, factors: StepFactors = TRUE
) -> list[Measurement]:
    """Plans of many shapes on a machine that really has these factors."""
    draw = random.Random(seed)
    found = []
    for _ in range(plans):
        parts = Measurement(draw.uniform(0.2, 2), draw.uniform(0.02, 1), draw.uniform(0.01, 0.3), 1.0)
        seconds = parts.predicted_seconds(factors) * (1 + draw.uniform(-noise, noise))
        found.append(parts._replace(measured_seconds=seconds))
    return found


def fitted(measurements: list[Measurement]) -> Fit:
    fit = fit_factors(measurements)
    assert fit is not None
    return fit


def test_enough_plans_give_the_true_factors() -> None:
    fit = fitted(machine(12))
    assert fit.factors.compute_factor == pytest.approx(1.6, rel=1e-3)
    assert fit.factors.communication_factor == pytest.approx(3.0, rel=1e-3)
    assert fit.factors.optimizer_factor == pytest.approx(0.7, rel=2e-3)
    assert fit.factors.overhead_seconds == pytest.approx(0.05, rel=2e-3)
    assert max(map(abs, fit.errors)) < 1e-3


REST = StepFactors(compute_factor=1.5, recompute_factor=1.5, communication_factor=6.0, optimizer_factor=6.0)
BY_PART = StepFactors(
    compute_factor=1.5, recompute_factor=1.5, communication_factor=6.0, optimizer_factor=0.5
)


@pytest.mark.parametrize(("factors", "enough"), [(REST, 4), (BY_PART, 6), (TRUE, 8)])
def test_few_plans_give_few_factors(factors: StepFactors, enough: int) -> None:
    """With a plan less than it takes, a simpler form is fitted, though it explains less."""
    found, simpler = (fitted(machine(plans, factors=factors)).factors for plans in (enough, enough - 1))
    for name, value in factors.model_dump().items():
        assert getattr(found, name) == pytest.approx(value, rel=5e-3)
    multipliers = {simpler.compute_factor, simpler.communication_factor, simpler.optimizer_factor}
    unknowns = {4: 2, 6: 3, 8: 4}[enough]
    assert len(multipliers) + (simpler.overhead_seconds > 0) < unknowns


@pytest.mark.parametrize("plans", [1, 2, 3])
def test_up_to_three_plans_give_one_factor(plans: int) -> None:
    assert fitted(machine(plans)).form == "one factor"


def test_one_factor_by_hand() -> None:
    # Relative least squares: sum(a) / sum(a^2) with a = predicted / measured = 1/2 and 1/4.
    fit = fitted([Measurement(1.0, 0.0, 0.0, 2.0), Measurement(0.5, 0.5, 0.0, 4.0)])
    assert fit.factors.compute_factor == pytest.approx(0.75 / 0.3125)
    assert fit.factors.communication_factor == fit.factors.compute_factor
    assert fit.factors.overhead_seconds == 0
    assert fit.errors_before == pytest.approx((-0.5, -0.75))
    assert fit.errors == pytest.approx((0.2, -0.4))
    # Of each by the other's ratio, 4 and 2.
    assert fit.held_out_errors == pytest.approx((1.0, -0.5))


@pytest.mark.parametrize(
    ("plans", "typical", "nine_of_ten"), [(4, 0.3, 0.45), (6, 0.1, 0.3), (12, 0.06, 0.1)]
)
def test_plans_that_were_held_out_are_predicted_better(
    plans: int, typical: float, nine_of_ten: float
) -> None:
    """The point of it all: 3 % of noise, factors from some plans, errors on others, as a share of the errors
    without factors. Few plans may all lie alike, so that one set in hundreds tells nothing of others."""
    shares = []
    for seed in range(200):
        fit = fitted(machine(plans, noise=0.03, seed=seed))
        others = machine(20, noise=0.03, seed=10_000 + seed)
        before = root_mean_square([one.error(StepFactors()) for one in others])
        shares.append(root_mean_square([one.error(fit.factors) for one in others]) / before)
        assert worth_writing(fit)
    shares.sort()
    assert shares[100] < typical
    assert shares[180] < nine_of_ten


AGAIN = StepFactors(compute_factor=2.0, recompute_factor=5.0, communication_factor=2.0, optimizer_factor=2.0)


def checkpointed(plans: int, factors: StepFactors) -> list[Measurement]:
    """Every other plan computes its forwards again, a third of its computing."""
    found = []
    for index, one in enumerate(machine(plans)):
        mixed = one._replace(recompute_seconds=index % 2 * one.compute_seconds / 3)
        found.append(mixed._replace(measured_seconds=mixed.predicted_seconds(factors)))
    return found


@pytest.mark.parametrize(
    ("factors", "plans"),
    [
        (AGAIN, 4),
        (AGAIN.model_copy(update={"communication_factor": 7.0, "optimizer_factor": 7.0}), 6),
        (AGAIN.model_copy(update={"overhead_seconds": 0.3}), 6),
    ],
)
def test_recomputation_that_costs_more_than_a_forward_is_found(factors: StepFactors, plans: int) -> None:
    found = fitted(checkpointed(plans, factors)).factors
    for name, value in factors.model_dump().items():
        assert getattr(found, name) == pytest.approx(value, rel=5e-3)


def test_a_part_that_does_not_occur_gets_no_factor_of_its_own() -> None:
    alone = [one._replace(communication_seconds=0.0) for one in machine(12)]
    alone = [one._replace(measured_seconds=one.predicted_seconds(TRUE)) for one in alone]
    factors = fitted(alone).factors
    assert factors.communication_factor == factors.optimizer_factor
    assert factors.compute_factor == pytest.approx(1.6, rel=1e-3)


def test_a_factor_out_of_all_proportion_is_not_carried_over() -> None:
    strange = StepFactors(communication_factor=60.0)
    factors = fitted(machine(12, factors=strange)).factors
    assert factors.communication_factor <= 30 * factors.compute_factor
    near = StepFactors(communication_factor=20.0)
    assert fitted(machine(12, factors=near)).factors.communication_factor == pytest.approx(20, rel=1e-2)


def test_noise_alone_does_not_earn_more_factors() -> None:
    same = StepFactors(compute_factor=2.0, communication_factor=2.0, optimizer_factor=2.0)
    forms = [fitted(machine(12, noise=0.05, seed=seed, factors=same)).form for seed in range(40)]
    assert forms.count("one factor") >= 36


def test_a_fit_that_explains_nothing_is_not_written() -> None:
    # Exactly as predicted on average, but for noise that no part explains.
    # Right on average; what is off is no part's doing.
    noise = (0.95, 1.05, 0.95, 1.05)
    fit = fitted([Measurement(1.0, 0.1, 0.01, 1.11 * value) for value in noise])
    assert not worth_writing(fit)
    assert fit_factors([]) is None


def test_only_plans_that_ran_as_they_were_planned_are_fitted() -> None:
    plans = [entry("good"), entry("edited", edited=True), entry("failed"), entry("waits")]
    journal = [
        ran("good", 1, 5.0, 6.0, 7.0),
        ran("edited", 1, 5.0),
        failed("failed", 1),
        ran("waits", 1, 5.0, data_seconds=(2.0,)),
    ]
    found = [measurement_of(result) for result in results_of(ablation(*plans), journal)]
    assert found == [Measurement(3.0, 1.0, 0.0, 6.0), None, None, Measurement(3.0, 1.0, 0.0, 3.0)]


def test_the_file_is_a_calibration_and_says_how_good_it_is() -> None:
    import yaml

    base = ablation(entry("one"))
    pool = base.pool.model_copy(update={"calibration": Calibration(fp32_matmul_tflops=0.05)})
    fit = fitted(machine(8))
    text = calibration_text(base.model_copy(update={"pool": pool}), fit)
    assert Calibration.model_validate(yaml.safe_load(text)) == Calibration(
        fp32_matmul_tflops=0.05, step_factors=fit.factors
    )
    for sentence in fit_sentences(fit):
        assert f"# {sentence}\n" in text
    assert "One plan: how well other plans are predicted with it is not known." in calibration_text(
        base, fitted(machine(1))
    )
