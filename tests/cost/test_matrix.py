"""Today's predictions against what real engines measured in every mode of the matrix (committed data), and
the data against engines of today."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from tests.benchmarks import engine_table
from tests.benchmarks.engine_matrix import measure
from tests.cost.known_values import wrong_values
from tests.cost.matrix_cases import MatrixCase, matrix
from tests.cost.matrix_predictions import Cost, allowed, is_refused, is_same, measurements, misses
from vdsgen.cost.engine_optimizer import engine_optimizer


def test_every_case_is_measured_with_the_installed_releases() -> None:
    found = measurements()
    assert list(found["cases"]) == [case.name for case in matrix()]
    assert set(SAMPLE) <= set(found["cases"])
    assert found["releases"] == {name: version(name).split("+")[0] for name in ("deepspeed", "torch")}


def test_predictions_are_within_their_tolerances_of_every_measurement() -> None:
    """States and host memory 1 %, activations and buckets 3 %, the peak 5 %."""
    found = list(misses())
    assert not found, "\n".join(found)


def test_the_page_shows_todays_predictions() -> None:
    assert engine_table.page(engine_table.PAGE.read_text()) == engine_table.PAGE.read_text(), (
        "run python -m tests.benchmarks.engine_table"
    )


def test_formulas_give_what_parts_of_the_engine_say() -> None:
    """Where no whole engine can be measured here: NVMe, frozen parameters."""
    assert list(wrong_values(Cost())) == []


REFUSALS = {
    "with a pipeline": "AssertionError: ZeRO-2 and ZeRO-3 are incompatible with pipeline parallelism",
    "gradients without ZeRO": "NotImplementedError: unsupported mix of model_dtype=",
}
"""By a part of our message, the engine's."""


@pytest.mark.parametrize(
    "case", [case for case in matrix() if not allowed(case.settings)], ids=lambda case: str(case.name)
)
def test_what_is_refused_the_engine_refuses_or_ignores(case: MatrixCase) -> None:
    with pytest.raises(ValueError, match="refused") as error:
        engine_optimizer(case.settings)
    answers = measurements()["cases"]
    assert is_refused(case, answers)
    if "refused" in answers[case.name]:
        ours = next(part for part in REFUSALS if part in str(error.value))
        assert answers[case.name]["refused"].startswith(REFUSALS[ours])
    else:
        assert "ignored" in str(error.value)


SAMPLE = (
    "1x2 zero2 bf16+fp32 interval 1",
    "1x2 zero3 bf16 interval 1 offload optimizer+parameters",
    "2x1 zero1 fp16 interval 1 offload optimizer",
    "2x1 zero0 fp32 interval 3",
)
"""Measured again where slow tests run, all on two ranks."""


@pytest.mark.slow
def test_engines_still_need_what_was_measured() -> None:
    """States are the same again, and peaks but for buffers that a thread of Gloo's may still hold."""
    again = measure([case for case in matrix() if case.name in SAMPLE])
    assert set(again) == set(SAMPLE)
    for name, answer in again.items():
        assert is_same(answer, measurements()["cases"][name]), f"{name}: {answer}"
