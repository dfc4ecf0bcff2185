"""What plans say of the runs of tests/gpu_cases.py.

python -m tests.gpu_predictions    plans them again, into docs/measured/gpu/predicted.json; a minute or two
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from tests.gpu_cases import CALIBRATED_LAB, CASES, FOLDER, LAB, Case
from vdsgen.spec.plan import Plan

FILE = FOLDER / "predicted.json"


class Prediction(TypedDict):
    """Of one run."""

    peak_bytes: int
    """Without the reserve."""
    step_seconds: float
    """By the catalogue's figures."""
    calibrated_step_seconds: float
    """By docs/measured/gpu/calibration.yaml."""
    optimizer_seconds: float
    """Of the calibrated step, with what is copied to the host and back."""


def predicted(case: Case) -> Prediction:
    plan, calibrated = plan_of(case, LAB), plan_of(case, CALIBRATED_LAB)
    assert calibrated.predicted.split is not None
    split = calibrated.predicted.split
    return {
        "peak_bytes": plan.stages[0].measured_bytes(on_processor=False),
        "step_seconds": plan.predicted.step_seconds,
        "calibrated_step_seconds": calibrated.predicted.step_seconds,
        "optimizer_seconds": split.optimizer_seconds + split.offload_seconds,
    }


def plan_of(case: Case, lab: Path) -> Plan:
    """The best plan that the case's pins leave."""
    from vdsgen.catalog.inputs import open_inputs
    from vdsgen.cli.profiles import find_profile
    from vdsgen.planner.plan import best_plans

    opened, experiment = open_inputs(lab, case.file, case.overrides)
    (best, *_) = best_plans(experiment, opened.pools[0], find_profile(experiment), 1)
    return best


def write() -> None:
    found = {case.name: predicted(case) for case in CASES}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
