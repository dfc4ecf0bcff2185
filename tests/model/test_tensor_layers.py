"""A block shared between ranks is the whole block, number by number: ranks are threads here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.sizes import geometry, tiny
from vdsgen.errors import VdsgenError
from vdsgen.model.export.tensor_shares import splits_of
from vdsgen.model.layers.block import Block
from vdsgen.model.layers.modulation import ROWS
from vdsgen.model.layers.positions import RotaryTables
from vdsgen.model.layers.tensor_parallel import TensorRanks, is_split
from vdsgen.model.pipeline import layer_specs
from vdsgen.spec.architecture import Vdt

MODEL = tiny(hidden_size=32, heads=4, mlp_hidden_size=48)
SEED = 3


class Threads(TensorRanks):
    """One of several ranks that are threads of this process."""

    def __init__(self, size: int, rank: int, place: list[Tensor], barrier: threading.Barrier) -> None:
        super().__init__(size, rank)
        self._place, self._barrier = place, barrier

    def _exchange(self, x: Tensor, made: Callable[[list[Tensor]], Tensor]) -> Tensor:
        self._place[self.rank] = x.detach().clone()
        self._barrier.wait(30)
        result = made(self._place)
        self._barrier.wait(30)
        return result

    def add_up(self, x: Tensor) -> Tensor:
        return x.copy_(self._exchange(x, lambda parts: torch.stack(parts).sum(0)))

    def gather(self, share: Tensor) -> Tensor:
        return self._exchange(share, lambda parts: self.joined(torch.stack(parts)))


def group(size: int) -> list[TensorRanks]:
    if size == 1:
        return [TensorRanks()]
    place, barrier = [torch.empty(0)] * size, threading.Barrier(size)
    return [Threads(size, rank, place, barrier) for rank in range(size)]


def block(model: Vdt, ranks: TensorRanks) -> Block:
    """In double precision, with nothing at zero that the whole block does not have there too."""
    made = Block(model, SEED, 1, RotaryTables(model.hidden_size // model.heads), ranks).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # gates and the projection to the text start at zero: nothing would flow
        made.table.copy_(torch.randn(made.table.shape, generator=generator) / 4)
        if made.cross_attention is not None:
            out = made.cross_attention.out
            whole = torch.randn(model.hidden_size, model.hidden_size, generator=generator) / 4
            out.weight.copy_(whole.chunk(ranks.size, dim=1)[ranks.rank])
            out.bias.copy_(torch.randn(model.hidden_size, generator=generator))
    return made


def run(model: Vdt, size: int) -> list[dict[str, Tensor]]:
    """Each rank's output and all gradients after one forward and backward of a block."""
    generator = torch.Generator().manual_seed(9)
    shapes = [(2, 3, 2, 3, model.hidden_size), (2, ROWS, model.hidden_size), (2, 5, model.hidden_size)]
    given = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    towards = torch.randn(shapes[0], generator=generator, dtype=torch.float64)

    def one(ranks: TensorRanks) -> dict[str, Tensor]:
        made = block(model, ranks)
        inputs = [x.clone().requires_grad_() for x in given]
        output = made(tuple(inputs))[0]
        output.backward(towards)
        found = {f"input {index}": x.grad for index, x in enumerate(inputs)}
        found |= {name: parameter.grad for name, parameter in made.named_parameters()}
        assert all(gradient is not None for gradient in found.values())
        return {"output": output.detach(), **found}

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, group(size)))


def shares(name: str, whole: Tensor, size: int) -> list[Tensor]:
    """A parameter of the whole block as ranks hold it."""
    layer, kind = name.split(".")[-2:] if "." in name else ("", name)
    if layer in ("qkv", "key_value"):
        parts = 3 if layer == "qkv" else 2
        rows = whole.view(parts, size, -1, *whole.shape[1:])
        return [rows[:, rank].flatten(0, 1) for rank in range(size)]
    if layer in ("query", "first"):
        return list(whole.chunk(size, dim=0))
    if (layer in ("out", "second", "pointwise") and kind == "weight") or layer == "temporal_convolution":
        return list(whole.chunk(size, dim=-1))
    return [whole] * size


@pytest.mark.parametrize("size", [2, 4])
def test_outputs_and_every_gradient_are_those_of_the_whole_block(size: int) -> None:
    """In double precision, so that rounding is far below what any mistake would make."""
    (whole,) = run(MODEL, 1)
    for rank, found in enumerate(run(MODEL, size)):
        assert found.keys() == whole.keys()
        for name, value in found.items():
            torch.testing.assert_close(
                value, shares(name, whole[name], size)[rank], rtol=1e-9, atol=1e-11, msg=name
            )


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_start_with_the_whole_models_weights(size: int) -> None:
    where = geometry(MODEL)
    whole = dict(layer_specs(MODEL, where, SEED)[2].build().named_parameters())
    for rank in range(size):
        mine = layer_specs(MODEL, where, SEED, TensorRanks(size, rank))[2].build()
        for name, parameter in mine.named_parameters():
            part = shares(name, whole[name], size)[rank]
            assert torch.equal(parameter, part), name
            assert is_split(parameter) == (part.shape != whole[name].shape), name


@pytest.mark.parametrize("size", [2, 4])
def test_layers_say_how_their_weights_are_put_together_again(size: int) -> None:
    where = geometry(MODEL)
    splits = splits_of(MODEL, where, size)
    whole = dict(layer_specs(MODEL, where, SEED)[2].build().named_parameters())
    ranks = [
        dict(layer_specs(MODEL, where, SEED, TensorRanks(size, rank))[2].build().named_parameters())
        for rank in range(size)
    ]
    for name, parameter in whole.items():
        split, parts = splits.get(f"2.{name}"), [rank[name] for rank in ranks]
        assert (split is not None) == is_split(parts[0]), name
        if split is not None:
            assert split.whole_shape(parts[0].shape, size) == parameter.shape
            assert torch.equal(split.whole(parts), parameter), name
    assert not [name for name in splits if name.startswith(("0.", f"{MODEL.depth + 1}."))]


@pytest.mark.parametrize(
    ("changes", "size", "said"),
    [
        ({}, 3, "tensor parallel size 3 does not divide the model's 4 attention heads"),
        ({"mlp_hidden_size": 42}, 4, "tensor parallel size 4 does not divide mlp_hidden_size (42)"),
    ],
)
def test_ranks_that_cannot_share_evenly_are_refused(changes: dict[str, Any], size: int, said: str) -> None:
    model = MODEL.model_copy(update=changes)
    with pytest.raises(VdsgenError) as caught:
        layer_specs(model, geometry(model), SEED, TensorRanks(size))
    assert said in str(caught.value)
