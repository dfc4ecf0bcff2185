"""What stays in fp32 where weights are in half precision, each shown by what would go wrong without it.

The optimizer's masters and moments and the gradient norm are the engine's:
tests/model/monitoring/test_ranks.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.model.sizes import geometry, random_batch, randomise, tiny
from vdsgen.model.data.order import generator_for
from vdsgen.model.layers.attention import _attended
from vdsgen.model.layers.embedding import timestep_features
from vdsgen.model.layers.modulation import normalized
from vdsgen.model.layers.positions import RotaryTables
from vdsgen.model.objective import diffusion_loss, sampling_times, training_pair
from vdsgen.model.pipeline import SequentialModel, layer_specs
from vdsgen.spec.sampling import BUNDLED
from vdsgen.spec.training import Diffusion

HALVES = [torch.float16, torch.bfloat16]
half = pytest.mark.parametrize("dtype", HALVES)


def as_near_as_rounding(found: Tensor, exact: Tensor) -> bool:
    """Whether `found`, in half precision, is the fp32 result to within its own two last bits."""
    assert found.dtype in HALVES
    ulp = torch.finfo(found.dtype).eps
    return torch.allclose(found.float(), exact, rtol=2 * ulp, atol=2 * ulp * float(exact.abs().max()))


@half
def test_norm_statistics(dtype: torch.dtype) -> None:
    """Mean and variance of 4,096 channels far from zero: a half-precision sum of them would stop growing."""
    x = (100 + torch.randn(8, 4096, generator=generator_for(0, "norm"))).to(dtype)
    assert as_near_as_rounding(normalized(x), normalized(x.float()))
    running = torch.zeros((), dtype=dtype)
    for value in x[0]:
        running = running + value
    mean = float(running) / 4096
    assert not abs(mean - float(x[0].float().mean())) < 1, "the premise: such a sum is worthless"


@half
def test_softmax(dtype: torch.dtype) -> None:
    """8,192 keys of one weight: their sum of exponentials passes what bf16 and fp16 can count in ones."""
    generator = generator_for(0, "softmax")
    q = torch.zeros(1, 4, 2, 16, dtype=dtype)
    k, v = (torch.randn(1, 8192, 2, 16, generator=generator).to(dtype) for _ in range(2))
    v = v + 1
    assert as_near_as_rounding(_attended(q, k, v), _attended(q.float(), k.float(), v.float()))


@half
def test_loss(dtype: torch.dtype) -> None:
    """An error of 300 squared is more than fp16 holds; a mean of a million squares more than bf16 adds up."""
    prediction = torch.full((1, 4, 16, 128, 128), 300.0, dtype=dtype)
    loss = diffusion_loss(prediction, torch.zeros_like(prediction))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(90_000, rel=1e-5)


def test_timestep_features() -> None:
    """The fastest sinusoid turns a thousand times: two timesteps that are one in bf16 are far apart in it."""
    near = torch.tensor([0.7, 0.7005])
    assert near[0].bfloat16() == near[1].bfloat16()
    features = timestep_features(near)
    assert features.dtype == torch.float32
    assert float((features[0] - features[1]).abs().max()) > 0.2


@half
def test_rotations_are_taken_in_fp32_and_rounded_once(dtype: torch.dtype) -> None:
    """Position 1,001 times a frequency of 1: its angle in bf16 would be off by up to four radians."""
    tables = RotaryTables(head_size=8)
    found = tables.temporal(1002, torch.empty(0, dtype=dtype))
    exact = tables.temporal(1002, torch.empty(0, dtype=torch.float64))
    for half_table, table in zip(found, exact, strict=True):
        assert as_near_as_rounding(half_table[-1], table[-1].float())
    angle = torch.tensor(1001.0).to(torch.bfloat16)
    assert abs(float(angle) - 1001) >= 1


def test_noising_and_the_times_that_sampling_takes() -> None:
    model = tiny()
    latents = torch.randn(3, 2, 4, 4).bfloat16()
    pair = training_pair(latents, generator_for(0, "pair"), Diffusion(), geometry(model))
    times = sampling_times(BUNDLED.steps, Diffusion(), geometry(model))
    assert {pair.noised.dtype, pair.timestep.dtype, pair.target.dtype, times.dtype} == {torch.float32}


@half
def test_the_prediction_leaves_the_model_in_fp32(dtype: torch.dtype) -> None:
    model = tiny()
    where = geometry(model)
    network = SequentialModel(layer_specs(model, where, seed=0), 0, diffusion_loss)
    randomise(network)
    network = network.to(dtype)
    inputs, target = random_batch(model, where)
    with torch.no_grad():
        prediction, loss = network(inputs), network(inputs, target)
    assert prediction.dtype == loss.dtype == torch.float32
    assert torch.isfinite(prediction).all()
