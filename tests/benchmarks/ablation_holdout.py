"""How well an ablation's factors predict plans that they were not fitted to:

    python -m tests.benchmarks.ablation_holdout DIR

DIR is an `--out` of `vdsgen ablate`. Its plans are split in two halves in many ways; factors come from one
half, errors and ranking are those of the other. What the whole time model makes of the factors is compared
with the sum of parts that they were fitted with.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from vdsgen.ablate.calibration import calibration_of
from vdsgen.ablate.entries import without_factors
from vdsgen.ablate.fit import Fit, Measurement, fit_factors, measurement_of
from vdsgen.ablate.records import Ablation, Result
from vdsgen.ablate.results import results_of
from vdsgen.ablate.state import AblationDirectory
from vdsgen.ablate.statistics import kendall_tau, relative_error, root_mean_square
from vdsgen.cli.profiles import find_profile
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.tables import step_time_of
from vdsgen.spec.rendered import read_rendered
from vdsgen.spec.step_factors import StepFactors

SPLITS = 200


def main(path: Path) -> None:
    directory = AblationDirectory(path)
    ablation = directory.read()
    results = results_of(ablation, directory.journal())
    usable = [(result, one) for result in results if (one := measurement_of(result)) is not None]
    measurements = [one for _, one in usable]
    fit = fit_factors(measurements)
    if fit is None or len(usable) < 4:
        sys.exit(f"{path}: {len(usable)} measured plans, needs 4")
    print(f"{len(usable)} plans; fitted to all: {fit.form}: {fit.factors}")
    print(f"{'':34}{'without':>10}{'with':>10}")
    for name, values in by_halves(measurements).items():
        print(f"{name:34}" + "".join(f"{value:10.3f}" for value in values))
    apart = model_beside_sum(directory, ablation, usable, fit)
    print(f"The whole time model is {100 * apart:.2f} % from the sum of parts at most.")


def by_halves(measurements: Sequence[Measurement]) -> dict[str, tuple[float, float]]:
    """Medians over splits: without factors, and with those of the other half."""
    draw = random.Random(0)
    errors: dict[bool, list[float]] = {False: [], True: []}
    taus: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(SPLITS):
        shuffled = draw.sample(list(measurements), len(measurements))
        fitted, held_out = shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :]
        fit = fit_factors(fitted)
        assert fit is not None
        for with_factors, factors in ((False, StepFactors()), (True, fit.factors)):
            errors[with_factors].append(root_mean_square([one.error(factors) for one in held_out]))
            measured = [one.measured_seconds for one in held_out]
            tau = kendall_tau([one.predicted_seconds(factors) for one in held_out], measured)
            if tau is not None:
                taus[with_factors].append(tau)
    return {
        "held-out step error, rms": (statistics.median(errors[False]), statistics.median(errors[True])),
        "held-out Kendall's tau": (statistics.median(taus[False]), statistics.median(taus[True])),
    }


def model_beside_sum(
    directory: AblationDirectory, ablation: Ablation, usable: Sequence[tuple[Result, Measurement]], fit: Fit
) -> float:
    """Largest relative difference of the calibrated time model's step to the linear sum. What makes one:
    with other factors transfers hide another part of the pipeline's waiting."""
    pool = without_factors(ablation.pool).model_copy(update={"calibration": calibration_of(ablation, fit)})
    worst = 0.0
    for result, measurement in usable:
        rendered = read_rendered(directory.plan(result.plan.name))
        workload = workload_of(rendered.experiment, pool, find_profile(rendered.experiment))
        time = step_time_of(rendered.plan, workload)
        seconds = time.step_seconds - time.data_seconds
        worst = max(worst, abs(relative_error(measurement.predicted_seconds(fit.factors), seconds)))
    return worst


if __name__ == "__main__":
    main(Path(sys.argv[1]))
