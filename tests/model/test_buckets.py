"""Clips of several sizes on DeepSpeed's real engine over gloo: one size a step, in every layout alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.buckets_worker import GEOMETRIES, SAVED, STEPS
from tests.model.layout_worker import GLOBAL_BATCH, MODEL
from tests.model.ranks import run_ranks
from tests.model.test_layouts import PARTITION, config, furthest
from vdsgen.cost.memory import MemoryModel
from vdsgen.cost.settings import Settings
from vdsgen.profile import build, ledger
from vdsgen.spec.profile import ModelProfile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TWO_AT_ONCE = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2}
CASES: dict[int, dict[str, dict[str, Any]]] = {
    1: {"1x1": config(1, 1), "1x1 of two": config(1, 1) | TWO_AT_ONCE},
    2: {"1x2 ZeRO-3 checkpointed": config(1, 2, zero=3, interval=3), "2x1": config(2, 1)},
    4: {"2x2 ZeRO-1 checkpointed": config(2, 2, zero=1, interval=2)},
}
NAMES = [name for cases in CASES.values() for name in cases]
MEASURED = ["1x1", "2x1"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each rank said of each case."""
    folder: Path = tmp_path_factory.mktemp("runs")
    found: dict[str, list[dict[str, Any]]] = {}
    for world_size, cases in CASES.items():
        jobs = [{"name": name, "config": case, "measured": name in MEASURED} for name, case in cases.items()]
        job = {"cases": jobs, "folder": str(folder)}
        by_rank = run_ranks("tests.model.buckets_worker", world_size, job)
        for index, name in enumerate(cases):
            found[name] = [answers[index] for answers in by_rank]
    return found


def test_every_size_has_its_steps_and_the_saved_step_lies_between_two_sizes(
    results: dict[str, list[dict[str, Any]]],
) -> None:
    sizes = [step["size"] for step in results["1x1"][0]["steps"]]
    assert sorted(sizes) == sorted([*range(len(GEOMETRIES))] * (STEPS // len(GEOMETRIES)))
    assert sizes[SAVED - 1] != sizes[SAVED]


@pytest.mark.parametrize("name", NAMES)
def test_layouts_agree_to_rounding(results: dict[str, list[dict[str, Any]]], name: str) -> None:
    reference = results["1x1"]
    for answer in results[name]:
        for step, expected in zip(answer["steps"], reference[0]["steps"], strict=True):
            assert step["size"] == expected["size"]
            assert step["loss"] == pytest.approx(expected["loss"], rel=1e-5)
            assert step["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
        assert answer["prediction"] == pytest.approx(reference[0]["prediction"], rel=1e-3, abs=1e-4)
    assert furthest(results[name], reference) < 1e-5


@pytest.mark.parametrize(
    ("name", "reference"),
    [("2x1", "1x1"), ("1x2 ZeRO-3 checkpointed", "1x1 of two"), ("2x2 ZeRO-1 checkpointed", "1x1 of two")],
)
def test_micro_batches_of_several_sizes_in_a_step_train_as_in_one_process(
    results: dict[str, list[dict[str, Any]]], name: str, reference: str
) -> None:
    """With as many samples in a micro-batch of all ranks: sizes are drawn for each of them."""
    (expected,) = [answer["mixed"] for answer in results[reference]]
    found = [answer["mixed"] for answer in results[name]]
    assert any(len(set(step["sizes"])) > 1 for step in expected["steps"])
    for answer in found:
        for step, plain in zip(answer["steps"], expected["steps"], strict=True):
            assert step["sizes"] == plain["sizes"]
            assert step["loss"] == pytest.approx(plain["loss"], rel=1e-5)
            assert step["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-4)
    assert furthest(found, [expected]) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_resuming_between_two_sizes_is_exact(results: dict[str, list[dict[str, Any]]], name: str) -> None:
    for answer in results[name]:
        assert answer["resumed"] == answer["steps"][SAVED:]


@pytest.mark.parametrize("name", MEASURED)
def test_the_largest_size_needs_what_it_needs_alone(
    results: dict[str, list[dict[str, Any]]], name: str
) -> None:
    for answer in results[name]:
        *_, largest = answer["peaks"]
        assert max(answer["peaks"]) == largest
        assert largest == pytest.approx(answer["peak_alone"], rel=0.01)


@pytest.fixture(scope="module")
def profile() -> ModelProfile:
    """The model's, with the kernels of this processor and not a GPU's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "hidden_temporary_bytes", lambda *_: 0)
        build._layer_types.cache_clear()
        try:
            return build.build_profile(MODEL)
        finally:
            build._layer_types.cache_clear()


@pytest.mark.parametrize("name", MEASURED)
def test_the_largest_size_needs_what_plans_say(
    results: dict[str, list[dict[str, Any]]], profile: ModelProfile, name: str
) -> None:
    stages = len(results[name])
    settings = Settings(
        pipeline_parallel_size=stages,
        data_parallel_size=1,
        zero_stage=0,
        micro_batch_size=1,
        gradient_accumulation_steps=GLOBAL_BATCH,
        activation_checkpoint_interval=0,
        dtype="fp32",
        gradient_accumulation_dtype="fp32",
        reduce_bucket_elements=1,
        allgather_bucket_elements=1,
    )
    memory = MemoryModel(profile, GEOMETRIES)
    for stage, answer in enumerate(results[name]):
        start, stop = PARTITION[stages][stage : stage + 2]
        planned = memory.tensor_bytes(settings, stage, start, stop)
        assert planned == pytest.approx(max(answer["peaks"]), rel=0.01), f"stage {stage}"
