"""The weights' average is that of every fp32 weight, whatever holds it, and training does not notice it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.model.ranks import run_ranks
from tests.model.test_checkpoint import BF16, FP16, case
from vdsgen.errors import VdsgenError
from vdsgen.model.ema import Arriving, _pieces, decay_at
from vdsgen.spec.trainer_section import ema_of
from vdsgen.spec.training import Ema

EVERY_STEP: dict[str, Any] = {"decay": 0.9, "warmup": True, "device": "accelerator", "every_steps": 1}
SOMETIMES: dict[str, Any] = {"decay": 0.9, "warmup": False, "device": "cpu", "every_steps": 2}
CASES = [
    case("pipeline-zero0-bf16", stages=2, zero_stage=0, bf16={"enabled": True}),
    case("pipeline-zero1-fp16", stages=2, zero_stage=1, **FP16),
    case("data-zero0-fp32", stages=1, zero_stage=0),
    case("data-zero0-bf16", stages=1, zero_stage=0, bf16={"enabled": True}),
    case("data-zero1-bf16", stages=1, zero_stage=1, **BF16),
    case("data-zero2-bf16", stages=1, zero_stage=2, **BF16),
    case("data-zero3-bf16", stages=1, zero_stage=3, bf16={"enabled": True}),
    case("tensor-zero0-fp32", stages=1, zero_stage=0, tensor=2),
    case("tensor-zero1-bf16", stages=1, zero_stage=1, tensor=2, **BF16),
    case("tensor-zero3-bf16", stages=1, zero_stage=3, tensor=2, bf16={"enabled": True}),
]
OPTIMIZERS = {
    "pipeline-zero0-bf16": "BF16_Optimizer",
    "pipeline-zero1-fp16": "DeepSpeedZeroOptimizer",
    "data-zero0-fp32": "AdamW",
    "data-zero0-bf16": "FP16_UnfusedOptimizer",
    "data-zero1-bf16": "BF16_Optimizer",
    "data-zero2-bf16": "DeepSpeedZeroOptimizer",
    "data-zero3-bf16": "DeepSpeedZeroOptimizer_Stage3",
    "tensor-zero0-fp32": "AdamW",
    "tensor-zero1-bf16": "BF16_Optimizer",
    "tensor-zero3-bf16": "DeepSpeedZeroOptimizer_Stage3",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs are, and what was exported of them."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Case -> what each rank says."""
    found: dict[str, list[dict[str, Any]]] = {}
    for pipelined in (True, False):
        cases = [
            {
                **item,
                "ema": SOMETIMES if number % 3 == 1 else EVERY_STEP,
            }
            for number, item in enumerate(CASES)
            if (item["config"]["pipeline"]["stages"] > 1) == pipelined
        ]
        ranks = run_ranks("tests.model.ema_worker", 2, {"cases": cases, "folder": str(folder)})
        found |= {item["name"]: [rank[index] for rank in ranks] for index, item in enumerate(cases)}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_weights_are_averaged_saved_and_changed_places_with(
    answers: dict[str, list[dict[str, Any]]], name: str
) -> None:
    for rank in answers[name]:
        assert rank["optimizer"] == OPTIMIZERS[name]
        assert rank["masters_round_to_weights"], "slices name the elements that are there"
        assert rank["exact"] == [True] * 4
        assert rank["average_is_in_place"] and rank["differs"], "samples are the average's"
        assert rank["back_again"]
        assert rank["same_training"]
        assert rank["stored"] and rank["stored_averages"] and rank["stored_all"], "read without the engine"
        assert rank["started"], "a run that starts from the exported folder predicts the same"
        assert rank["resumed"] and rank["resumed_average"], "a resumed average goes on as it was"
        assert rank["held_out"] == answers[name][0]["held_out"], "every rank validates the same weights"
    # Tensor-parallel ranks each have their own.
    shared_out = OPTIMIZERS[name] not in ("AdamW", "FP16_UnfusedOptimizer") or name.startswith("tensor")
    files = ["ema_rank_00000.pt", "ema_rank_00001.pt"]
    assert answers[name][0]["files"] == (files if shared_out else files[:1])


@pytest.mark.slow
def test_exported_shares_of_blocks_are_the_weights_of_ranks_that_share_none(
    answers: dict[str, list[dict[str, Any]]], folder: Path
) -> None:
    """After two steps on the same samples. Each rank held half of every block."""
    assert answers["tensor-zero0-fp32"][0]["stored_all"]
    whole, merged = (
        {
            name: tensor
            for file in (folder / f"{layout}-zero0-fp32 exported").glob("*.safetensors")
            for name, tensor in load_file(file).items()
        }
        for layout in ("data", "tensor")
    )
    assert merged.keys() == whole.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_the_average_forgets_its_first_steps_sooner_with_warm_up() -> None:
    ema = Ema(decay=0.999)
    decays = [decay_at(ema, step) for step in (1, 10, 100, 10**6)]
    assert decays == pytest.approx([2 / 11, 11 / 20, 101 / 110, 0.999])
    assert decay_at(Ema(decay=0.999, warmup=False), 1) == 0.999


def test_averaging_seldom_keeps_the_same_of_each_step() -> None:
    assert decay_at(Ema(decay=0.99, warmup=False, every_steps=3), 3) == pytest.approx(0.99**3)


class FakeStream:
    """Copies arrive when they are waited for, and no sooner."""

    def __init__(self) -> None:
        self.waited = 0

    def current_stream(self) -> FakeStream:
        return self

    def record_event(self) -> FakeStream:
        return self

    def synchronize(self) -> None:
        self.waited += 1


def test_weights_come_to_the_host_a_piece_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """In two buffers, the next piece under way while one is averaged."""
    stream, empty = FakeStream(), torch.empty
    monkeypatch.setattr("vdsgen.model.ema.PIECE_ELEMENTS", 4)
    monkeypatch.setattr(torch, "get_device_module", lambda _: stream)
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: empty(*a, **k))
    average, weights = torch.zeros(10), torch.arange(10.0)
    asked: list[int] = []

    def noted() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for old, new in _pieces(average, weights):
            asked.append(stream.waited)
            yield old, new

    arriving = Arriving()
    for old, new in arriving.on_host(noted()):
        old.lerp_(new, 0.5)
    assert torch.equal(average, weights / 2)
    assert asked == [0, 0, 1]
    assert stream.waited == 3


def test_the_config_says_how_weights_are_averaged() -> None:
    assert ema_of({}) is None
    assert ema_of({"vdsgen": {"ema": EVERY_STEP}}) == Ema.model_validate(EVERY_STEP)
    with pytest.raises(VdsgenError, match=r"vdsgen\.ema\.decay: Input should be less than 1"):
        ema_of({"vdsgen": {"ema": {"decay": 1.5}}})
    with pytest.raises(VdsgenError, match=r"nothing reads vdsgen\.emma"):
        ema_of({"vdsgen": {"emma": {}}})
