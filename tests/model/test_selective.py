"""Selective recomputation: the same numbers bit for bit, and no product computed twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from tests.model.sizes import geometry, random_batch, randomise, tiny
from vdsgen.errors import VdsgenError
from vdsgen.model.build import build_engine
from vdsgen.model.layers.tensor_parallel import RowParallelLinear, TensorRanks
from vdsgen.model.objective import diffusion_loss
from vdsgen.model.pipeline import SequentialModel, layer_specs
from vdsgen.model.selective import PRODUCTS, KeptProducts

BATCH = 2
aten = torch.ops.aten


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.runs: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.runs[func.overloadpacket] += 1
        return func(*args, **(kwargs or {}))

    @property
    def products(self) -> int:
        return sum(count for op, count in self.runs.items() if op in PRODUCTS)


def network(condition: str, interval: int, plain: int, selective: int) -> SequentialModel:
    model = tiny(condition=condition)
    specs = layer_specs(model, geometry(model), seed=2)
    built = SequentialModel(specs, interval, diffusion_loss, None, plain, selective)
    randomise(built)
    return built


def trained(condition: str, interval: int, plain: int, selective: int) -> tuple[Tensor, list[Tensor], int]:
    """Losses and gradients of two micro-batches, whose forwards come before both backwards, and how many
    products ran."""
    built, model = network(condition, interval, plain, selective), tiny(condition=condition)
    batches = [random_batch(model, geometry(model), BATCH, seed) for seed in range(2)]
    with Counting() as counting:
        losses = [built(inputs, target) for inputs, target in batches]
        for loss in losses:
            loss.backward()
    found = [parameter.grad for parameter in built.parameters()]
    assert all(gradient is not None for gradient in found)
    return torch.stack(losses).detach(), found, counting.products  # type: ignore[return-value]


@pytest.mark.parametrize("condition", ["none", "class", "text"])
@pytest.mark.parametrize(
    ("interval", "plain", "selective"), [(1, 0, 6), (1, 2, 4), (1, 0, 3), (2, 1, 2), (3, 0, 2)]
)
def test_losses_and_gradients_are_the_same_bit_for_bit(
    condition: str, interval: int, plain: int, selective: int
) -> None:
    plain_loss, expected, once = trained(condition, 0, 0, 0)
    loss, gradients, products = trained(condition, interval, plain, selective)
    assert torch.equal(loss, plain_loss)
    assert all(torch.equal(one, other) for one, other in zip(gradients, expected, strict=True))
    whole = 6 - plain - selective
    assert (products == once) == (whole == 0), "only layers that are recomputed whole repeat products"


def test_no_product_runs_again_and_cheap_work_does() -> None:
    model = tiny()
    inputs, target = random_batch(model, geometry(model), BATCH)
    runs = {}
    for interval, selective in ((0, 0), (1, 6), (1, 0)):
        built = network("text", interval, 0, selective)
        with Counting() as counting:
            built(inputs, target).backward()
        runs[interval, selective] = counting
    plain, kept, full = runs[0, 0], runs[1, 6], runs[1, 0]
    assert plain.products == kept.products < full.products
    assert kept.runs[aten.native_layer_norm] > plain.runs[aten.native_layer_norm]
    assert kept.runs[aten.gelu] > plain.runs[aten.gelu]


def test_predictions_need_no_recomputation() -> None:
    built, model = network("text", 1, 0, 6), tiny()
    inputs, _ = random_batch(model, geometry(model), BATCH)
    with torch.no_grad(), Counting() as counting:
        one = built(inputs)
    with torch.no_grad():
        assert torch.equal(one, network("text", 0, 0, 0)(inputs))
    assert aten.detach not in counting.runs, "nothing is kept"


class InPlace(nn.Module):
    """A product that is changed in place: right away, after it was read, or where it is another's input."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        randomise(self)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x.sin())
        if self.how == "at once":
            a = a.view(-1).mul_(2).view(4, 8)
        elif self.how == "after it was read":
            read = a + 1
            a = a.mul_(2) + read
        elif self.how == "after another product":
            a = a.add_(self.second(x.cos()))
        out: Tensor = self.second(a.tanh().exp())
        return out.tanh()


@pytest.mark.parametrize("how", ["at once", "after it was read", "after another product", "not"])
def test_products_that_are_changed_in_place_are_right_again(how: str) -> None:
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    layer = InPlace(how)
    expected = torch.autograd.grad(layer(x).sum(), [x, *layer.parameters()])
    contexts = KeptProducts().contexts
    out = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    found = torch.autograd.grad(out.sum(), [x, *layer.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


class Doubling(TensorRanks):
    """Two ranks with equal shares, and how often they send."""

    sent = 0

    def add_up(self, x: Tensor) -> Tensor:
        self.sent += 1
        np.multiply(x.numpy(), 2, out=x.numpy())  # no operator, as messages are none
        return x


def test_sums_over_ranks_are_kept_and_not_sent_again() -> None:
    ranks = Doubling(2, 0)
    layer = nn.Sequential(
        nn.Tanh(), RowParallelLinear(16, 8, torch.Generator().manual_seed(0), ranks), nn.Tanh()
    )
    randomise(layer)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    expected = torch.autograd.grad(layer(x).sum(), [x, *layer.parameters()])
    assert ranks.sent == 1
    contexts = KeptProducts().contexts
    out = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    found = torch.autograd.grad(out.sum(), [x, *layer.parameters()])
    assert ranks.sent == 2, "forward's, and not recomputation's"
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("pipeline", "complaint"),
    [
        ({"selective_layers": [1, 0], "activation_checkpoint_interval": 1}, "needs 1 entries, one a stage"),
        ({"selective_layers": [1]}, "stage 0 recomputes 0 layers"),
        ({"selective_layers": [7], "activation_checkpoint_interval": 1}, "stage 0 recomputes 6 layers"),
        (
            {"selective_layers": [5], "plain_layers": [2], "activation_checkpoint_interval": 1},
            "stage 0 recomputes 4 layers",
        ),
    ],
)
def test_more_layers_than_are_recomputed_are_refused(pipeline: dict[str, Any], complaint: str) -> None:
    model = tiny()
    with pytest.raises(VdsgenError, match=complaint):
        build_engine({"pipeline": pipeline}, model, geometry(model), seed=0)
