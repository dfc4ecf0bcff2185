"""Packed activations: how near they come, how much they hold, and what is never packed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.model.sizes import geometry, random_batch, randomise, tiny
from tests.model.test_activation_offload import SavesAsTorchDidBefore
from vdsgen.errors import VdsgenError
from vdsgen.model.activation_compression import BLOCK, Codec, Format, Packed
from vdsgen.model.build import build_engine
from vdsgen.model.objective import diffusion_loss
from vdsgen.model.pipeline import SequentialModel, layer_specs

FORMATS: tuple[Format, ...] = ("int8", "fp8")


def packed(tensor: Tensor, kind: Format = "int8") -> Packed:
    found = Codec(kind).pack(tensor)
    assert isinstance(found, Packed)
    return found


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    columns=st.sampled_from([16, 72, 128, 131, 200, 384]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    kind=st.sampled_from(FORMATS),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 300.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_what_comes_back_is_near(
    shape: list[int], columns: int, dtype: torch.dtype, kind: Format, scale: float, seed: int
) -> None:
    """Within half a step of int8, or fp8's three bits of mantissa, of each block's largest; and the dtype's
    own rounding."""
    x = scale * torch.randn(*shape, columns, generator=torch.Generator().manual_seed(seed))
    x = x.to(dtype)
    back = packed(x, kind).unpacked()
    assert (back.dtype, back.shape, back.is_contiguous()) == (x.dtype, x.shape, True)
    rows, largest = x.float().reshape(-1, columns), []
    width = {16: 16, 72: 72, 128: 128, 200: 100, 384: 128, 131: BLOCK}[columns]
    for begin in range(0, columns, width):
        part = rows[:, begin : begin + width]
        largest.append(part.abs().amax(-1, keepdim=True).expand_as(part))
    eps = torch.finfo(dtype).eps
    most = torch.cat(largest, -1)
    step = most / 127 * 0.5 if kind == "int8" else rows.abs() / 16 + most / 448 * 2**-9
    error = (back.float().reshape(-1, columns) - rows).abs()
    assert bool((error <= step * 1.01 + 2 * eps * most + torch.finfo(dtype).tiny).all())


def test_bytes_are_one_an_element_and_a_scale_a_block() -> None:
    assert packed(torch.randn(6, 256)).nbytes == 6 * 256 + 6 * 2 * 4
    assert packed(torch.randn(6, 256).bfloat16()).nbytes == 6 * 256 + 6 * 2 * 2
    assert packed(torch.randn(6, 72).bfloat16()).nbytes == 6 * 72 + 6 * 2, "a short row is one block"
    assert packed(torch.randn(6, 192).bfloat16()).nbytes == 6 * 192 + 6 * 2 * 2, "two blocks of 96"
    assert packed(torch.randn(6, 131).bfloat16()).nbytes == 6 * 256 + 6 * 2 * 2, "a prime is filled up"


def test_rows_of_attention_are_all_its_heads() -> None:
    """(N, H, M, K), which lie as (N, M, H, K) in memory."""
    x = torch.randn(3, 5, 4, 64).transpose(1, 2)
    found = packed(x)
    assert found.nbytes == x.numel() + 3 * 5 * (4 * 64 // BLOCK) * 4
    assert found.unpacked().stride() == x.stride()
    assert torch.allclose(found.unpacked(), x, atol=float(x.abs().max()) / 127)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(64).view(2, 32),
        torch.randn(64),
        torch.randn(4, 8),
        torch.randn(4, 32).to(torch.float8_e4m3fn),
    ],
)
def test_what_would_not_pay_stays(tensor: Tensor) -> None:
    assert Codec("int8").pack(tensor) is tensor


def trained(kind: Format | None, selective: int) -> tuple[Tensor, Tensor]:
    """Loss, and all gradients as one vector."""
    model = tiny(hidden_size=64, heads=2)
    codec = None if kind is None else Codec(kind)
    specs = layer_specs(model, geometry(model), seed=2)
    built = SequentialModel(specs, 1, diffusion_loss, None, 0, selective, codec)
    randomise(built)
    inputs, target = random_batch(model, geometry(model))
    loss = built(inputs, target)
    loss.backward()
    gradients = [parameter.grad for parameter in built.parameters() if parameter.grad is not None]
    return loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("selective", [0, 6])
@pytest.mark.parametrize(("kind", "most"), [("int8", 0.03), ("fp8", 0.15)])
def test_the_loss_is_the_same_and_gradients_are_near(kind: Format, most: float, selective: int) -> None:
    loss, exact = trained(None, selective)
    packed_loss, gradients = trained(kind, selective)
    assert torch.equal(loss, packed_loss)
    error = float((gradients - exact).norm() / exact.norm())
    assert 0 < error < most


def test_each_segment_packs_its_hidden_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the latents of the first, and no tensor that segments share."""
    shapes: list[tuple[int, ...]] = []
    pack = Codec.pack

    def noted(self: Codec, tensor: Tensor) -> Any:
        shapes.append(tuple(tensor.shape))
        return pack(self, tensor)

    monkeypatch.setattr(Codec, "pack", noted)
    trained("int8", 0)
    where = geometry(tiny())
    hidden = (2, where.frames, where.latent_height // 2, where.latent_width // 2, 64)
    assert shapes == [hidden] * 5
    shapes.clear()
    trained("int8", 6)
    assert shapes.count(hidden) == 5 and len(shapes) > 5 * 8


def test_an_empty_tensor_that_torch_saves_first_is_not_taken_for_the_hidden_state() -> None:
    codec, hidden = Codec("int8"), torch.randn(4, 32)
    with codec.first_tensor():
        saved: Any = SavesAsTorchDidBefore.apply(  # type: ignore[no-untyped-call]
            torch.empty(0, requires_grad=True), hidden
        )
    came_back = saved.grad_fn.saved_tensors[1]
    assert not torch.equal(came_back, hidden)
    assert torch.allclose(came_back, hidden, atol=0.02)


@pytest.mark.parametrize(
    ("pipeline", "complaint"),
    [
        ({"compress_activations": "int8"}, "needs checkpointing"),
        (
            {"compress_activations": "int4", "activation_checkpoint_interval": 1},
            "'int4', not one of fp8, int8",
        ),
        (
            {"compress_activations": "fp8", "activation_checkpoint_interval": 1, "offload_activations": True},
            "packs what pipeline.offload_activations moves",
        ),
    ],
)
def test_what_cannot_be_packed_is_refused(pipeline: dict[str, Any], complaint: str) -> None:
    model = tiny()
    with pytest.raises(VdsgenError, match=complaint):
        build_engine({"pipeline": pipeline}, model, geometry(model), seed=0)
