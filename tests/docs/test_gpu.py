"""docs/gpu.md says what was measured on a GPU, and what today's plans say of it."""

from __future__ import annotations

import json

import pytest

from tests.gpu_cases import CASES
from tests.gpu_predictions import FILE, predicted
from tests.update_gpu import MEASURED, PAGE, page, peak_bytes


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "stale: run `python -m tests.update_gpu`"


def test_every_case_was_measured_and_predicted() -> None:
    names = {case.name for case in CASES}
    assert json.loads(FILE.read_text(encoding="utf-8")).keys() == names
    assert json.loads(MEASURED.read_text(encoding="utf-8"))["runs"].keys() == names


@pytest.mark.parametrize("name", ["1.5b-8", "1.5b-offloaded-optimizer", "1.5b-selective"])
def test_plans_still_say_so_and_are_still_right(name: str) -> None:
    """Of memory: measured peaks, to one per cent."""
    (case,) = (case for case in CASES if case.name == name)
    kept = json.loads(FILE.read_text(encoding="utf-8"))[name]
    again = predicted(case)
    assert again == pytest.approx(kept, rel=1e-9), "stale: run `python -m tests.gpu_predictions`"
    runs = json.loads(MEASURED.read_text(encoding="utf-8"))["runs"][name]
    assert again["peak_bytes"] == pytest.approx(peak_bytes(runs), rel=0.01)
