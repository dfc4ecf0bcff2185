"""AdamW with moments in 8 bits: what quantising loses, and that it trains as AdamW does."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vdsgen.model import adamw_8bit
from vdsgen.model.adamw_8bit import (
    CODES,
    SCALES,
    ZERO,
    AdamW8bit,
    code_boundaries,
    code_values,
    codes_of,
    dequantised,
    moment_of,
    quantised,
)
from vdsgen.spec.quantized_moments import BLOCK_ELEMENTS, SMALLEST_ELEMENTS, moment_bytes

CPU = torch.device("cpu")


@pytest.mark.parametrize("signed", [True, False])
def test_values_are_256_that_lie_closer_the_smaller_they_are(signed: bool) -> None:
    values = code_values(signed, CPU)
    assert len(set(values.tolist())) == 256
    assert values[-1] == 1 and values[ZERO[signed]] == 0
    positive = values[values > 0]
    assert float(positive[0]) < 1e-6, "seven decades"
    assert (positive.diff() > 0).all()
    if signed:
        assert float(values[0]) == pytest.approx(-float(values[-2]))


@given(seed=st.integers(0, 2**31), elements=st.integers(1, 3000), scale=st.floats(1e-8, 1e4))
@settings(max_examples=40, deadline=None)
def test_what_is_lost_is_small_beside_the_blocks_largest(seed: int, elements: int, scale: float) -> None:
    x = torch.randn(elements, generator=torch.Generator().manual_seed(seed)) * scale
    for signed, value in ((True, x), (False, x.square())):
        codes, scales = quantised(value, signed=signed)
        assert codes.shape == value.shape and codes.dtype == torch.uint8
        assert len(scales) == -(-elements // BLOCK_ELEMENTS)
        back = dequantised(codes, scales, signed=signed)
        largest = scales.repeat_interleave(BLOCK_ELEMENTS)[:elements]
        # The widest gap is in the top decade: 0.9 in 64 parts with a sign, in 128 without.
        assert ((back - value).abs() <= largest * (0.9 / (64 if signed else 128)) + 1e-30).all()
        if not signed:  # of negative values none is -1: a block's largest may shrink by 0.7 %
            assert torch.equal(quantised(back, signed=signed)[0], codes), "what is quantised stays as it is"


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_those_of_the_nearest_values(signed: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    boundaries = code_boundaries(signed, CPU)
    sizes = 10.0 ** torch.empty(200_000).uniform_(-9, 0, generator=generator)
    numbers = torch.cat([sizes, -sizes if signed else sizes, boundaries, code_values(signed, CPU)])
    for x in (
        numbers,
        numbers.nextafter(torch.tensor(2.0)).clamp(max=1),
        numbers.nextafter(torch.tensor(-2.0)),
    ):
        x = x.clamp(-1 if signed else 0, 1)
        assert torch.equal(codes_of(x, signed=signed).long(), torch.bucketize(x, boundaries))


def test_zero_stays_zero() -> None:
    codes, scales = quantised(torch.zeros(300), signed=True)
    assert torch.equal(dequantised(codes, scales, signed=True), torch.zeros(300))


def trained(optimizer_class: type[torch.optim.Optimizer], steps: int = 300) -> tuple[list[float], nn.Module]:
    """A small network learns a fixed function."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 8))
    teacher = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8))
    optimizer = optimizer_class(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.01)  # type: ignore[call-arg]
    losses = []
    for _ in range(steps):
        x = torch.randn(64, 32)
        with torch.no_grad():
            target = teacher(x)
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses, model


def test_it_learns_as_fast_as_exact_adamw() -> None:
    (exact, _), (rounded, _) = trained(torch.optim.AdamW), trained(AdamW8bit)
    assert exact[0] == rounded[0]
    last = [sum(losses[-50:]) / 50 for losses in (exact, rounded)]
    assert last[0] < 0.1 * exact[0]
    assert last[1] == pytest.approx(last[0], rel=0.1)


def test_small_tensors_are_stepped_exactly() -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, SMALLEST_ELEMENTS - 1)) for _ in range(2))
    optimizers = AdamW8bit([ours], lr=0.1), torch.optim.AdamW([theirs], lr=0.1)
    for step in range(5):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = torch.full_like(parameter, 0.1 * step - 0.2)
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_tensor_in_pieces_is_stepped_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped() -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        parameter = nn.Parameter(torch.randn(10_000, generator=generator))
        optimizer = AdamW8bit([parameter], lr=0.1)
        for _ in range(3):
            parameter.grad = torch.randn(10_000, generator=generator)
            optimizer.step()
        return parameter.detach()

    whole = stepped()
    monkeypatch.setattr(adamw_8bit, "PIECE_ELEMENTS", 4 * BLOCK_ELEMENTS)
    assert torch.equal(stepped(), whole)


def test_states_are_as_large_as_is_planned_and_come_back_exactly() -> None:
    parameter = nn.Parameter(torch.randn(100_000))
    optimizer = AdamW8bit([parameter], lr=1e-2)
    for _ in range(2):
        parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    state = optimizer.state[parameter]
    stored = sum(state[key].numel() * state[key].element_size() for key in (*CODES, *SCALES))
    assert stored == moment_bytes(100_000) < 0.26 * 8 * 100_000
    other = nn.Parameter(parameter.detach().clone())
    again = AdamW8bit([other], lr=5.0)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    gradient = torch.randn_like(parameter)
    for one, its in ((parameter, optimizer), (other, again)):
        one.grad = gradient.clone()
        its.step()
    assert torch.equal(parameter, other)
    assert again.state[other][CODES[0]].dtype == torch.uint8


def test_moments_can_be_set_and_read_in_stretches() -> None:
    generator = torch.Generator().manual_seed(3)
    for elements in (SMALLEST_ELEMENTS - 1, 10_000):
        first, second = torch.randn(elements, generator=generator), torch.rand(elements, generator=generator)
        parameter = nn.Parameter(torch.zeros(elements))
        optimizer = AdamW8bit([parameter])
        optimizer.set_moments(parameter, first, second, 5)
        state = optimizer.state[parameter]
        assert float(state["step"]) == 5
        for moment, exact in enumerate((first, second)):
            whole = moment_of(state, moment, 0, elements)
            assert torch.allclose(whole, exact, atol=0.02 * float(exact.abs().max()))
            assert elements > SMALLEST_ELEMENTS or torch.equal(whole, exact)
            for start, length in ((0, 1), (255, 2), (300, 1000), (elements - 7, 7)):
                assert torch.equal(moment_of(state, moment, start, length), whole[start : start + length])
