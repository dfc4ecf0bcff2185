"""What each layer of the family promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.model.sizes import geometry, random_batch, randomise, tiny
from vdsgen.model.layers.attention import SelfAttention
from vdsgen.model.layers.block import Block
from vdsgen.model.layers.convolution import TemporalConvolution, _DepthwiseOverTime
from vdsgen.model.layers.embedding import Embed, patchified, timestep_features
from vdsgen.model.layers.final import Final, unpatchified
from vdsgen.model.layers.initial import layer_generator
from vdsgen.model.layers.positions import RotaryTables, rotated
from vdsgen.model.pipeline import layer_specs

CONDITIONS = ["none", "class", "text"]


def block_of(condition: str = "text", position: str = "rotary") -> tuple[Block, tuple[Tensor, ...]]:
    """A block with random weights, and random inputs for it."""
    model = tiny(condition=condition, position=position)
    where = geometry(model)
    block = layer_specs(model, where, seed=1)[1].build()
    assert isinstance(block, Block)
    randomise(block)
    hidden = torch.randn(2, where.frames, 2, 3, model.hidden_size)
    inputs: tuple[Tensor, ...] = (hidden, torch.randn(2, 12, model.hidden_size))
    if condition == "text":
        inputs = (*inputs, torch.randn(2, where.text_tokens, model.hidden_size))
    return block, inputs


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("position", ["rotary", "learned"])
def test_a_fresh_block_is_the_identity(condition: str, position: str) -> None:
    model = tiny(condition=condition, position=position)
    where = geometry(model)
    embed, block = (spec.build() for spec in layer_specs(model, where, seed=3)[:2])
    activations = embed(random_batch(model, where)[0])
    for before, after in zip(activations, block(activations), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_block_with_open_gates_changes_the_hidden_state_alone(condition: str) -> None:
    block, inputs = block_of(condition)
    outputs = block(inputs)
    assert (outputs[0] - inputs[0]).abs().mean() > 0.01
    assert all(torch.equal(a, b) for a, b in zip(outputs[1:], inputs[1:], strict=True))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_layers_give_the_shapes_and_dtypes_that_stages_exchange(condition: str) -> None:
    model = tiny(condition=condition)
    where = geometry(model)
    embed, block, *_, final = (spec.build().bfloat16() for spec in layer_specs(model, where, seed=0))
    inputs, target = random_batch(model, where)
    activations = block(embed(inputs))
    expected: list[tuple[int, ...]] = [(2, where.frames, 2, 3, model.hidden_size), (2, 12, model.hidden_size)]
    if condition == "text":
        expected.append((2, where.text_tokens, model.hidden_size))
    assert [tuple(x.shape) for x in activations] == expected
    assert all(x.dtype == torch.bfloat16 for x in activations)
    prediction = final(activations)
    assert prediction.shape == target.shape
    assert prediction.dtype == torch.float32


def test_patches_go_back_to_where_they_came_from() -> None:
    latents = torch.randn(2, 3, 4, 6, 8)
    patches = patchified(latents, 2)
    assert patches.shape == (2, 4, 12, 12)
    assert torch.equal(unpatchified(patches, rows=3, columns=4, patch=2), latents)
    # The second patch of a row lies to the right: same rows, next columns, channel by channel.
    assert torch.equal(patches[0, 0, 1], latents[0, :, 0, 0:2, 2:4].flatten())


def influence(layer: nn.Module, x: Tensor, at: tuple[int, ...]) -> Tensor:
    """Where in x (..., D) the output at index `at` depends on the input: (...) booleans."""
    x = x.clone().requires_grad_()
    layer(x)[at].square().sum().backward()
    assert x.grad is not None
    return x.grad.abs().sum(-1) > 1e-9


def attention_part(block: Block, inputs: tuple[Tensor, ...], first_row: int) -> nn.Module:
    """One of the two attentions with its modulation, as a module of the hidden state (B, T, S, D) alone."""
    rows = (inputs[1] + block.table)[:, :, None, None].unbind(1)
    attend = block._attend_within_frames if first_row == 0 else block._attend_along_time
    rotation = block.rotations(inputs[0])[0 if first_row == 0 else 1]

    class Part(nn.Module):
        def forward(self, hidden: Tensor) -> Tensor:
            return attend(hidden, rotation, *(row.detach() for row in rows[first_row : first_row + 3]))

    return Part()


def test_spatial_attention_stays_within_its_frame() -> None:
    block, inputs = block_of()
    depends = influence(attention_part(block, inputs, 0), inputs[0].flatten(2, 3), (1, 2, 3))
    assert depends[1, 2].all()
    assert depends.sum() == depends[1, 2].sum()


def test_temporal_attention_stays_with_its_patch() -> None:
    block, inputs = block_of()
    depends = influence(attention_part(block, inputs, 3), inputs[0].flatten(2, 3), (1, 2, 3))
    assert depends[1, :, 3].all()
    assert depends.sum() == depends[1, :, 3].sum()


def test_temporal_convolution_reaches_half_its_kernel() -> None:
    convolution = TemporalConvolution(6, 5, layer_generator(0, 0))
    depends = influence(convolution, torch.randn(2, 7, 3, 6), (0, 3, 1))
    assert depends[0, :, 1].tolist() == [False, True, True, True, True, True, False]
    assert depends.sum() == 5


@pytest.mark.parametrize("taps", [1, 3, 5, 7])
def test_the_depthwise_convolution_is_the_librarys(taps: int) -> None:
    generator = torch.Generator().manual_seed(taps)
    x, kernel, bias = (
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((2, 3, 4, 5), (taps, 5), (5,))
    )
    ours = _DepthwiseOverTime.apply(x, kernel, bias)  # type: ignore[no-untyped-call]
    channels_first = x.permute(0, 2, 3, 1).reshape(8, 5, 3)
    theirs = F.conv1d(channels_first, kernel.t()[:, None], bias, padding=taps // 2, groups=5)
    assert torch.allclose(ours, theirs.view(2, 4, 5, 3).permute(0, 3, 1, 2))
    assert torch.autograd.gradcheck(_DepthwiseOverTime.apply, (x, kernel, bias))


def test_rotation_keeps_lengths_and_differentiates() -> None:
    tables = RotaryTables(head_size=12)
    x = torch.randn(2, 12, 2, 12, dtype=torch.float64, requires_grad=True)
    turned = rotated(x, tables.spatial(3, 4, x))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.autograd.gradcheck(lambda y: rotated(y, tables.spatial(3, 4, y)), (x,))


def test_temporal_rotation_sees_only_distances() -> None:
    tables = RotaryTables(head_size=8)
    q, k = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    like = torch.zeros((), dtype=torch.float64)
    at = [rotated(v.expand(1, 9, 1, 8), tables.temporal(9, like))[0, :, 0] for v in (q, k)]
    products = at[0] @ at[1].t()
    for distance in range(-4, 5):
        diagonal = products.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal))
    assert not torch.allclose(products.diagonal(1)[0], products.diagonal(2)[0])


def test_spatial_rotation_sees_row_and_column_distances() -> None:
    rows, columns = 4, 5
    like = torch.zeros((), dtype=torch.float64)
    rotation = RotaryTables(head_size=8).spatial(rows, columns, like)
    q, k = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    at = [
        rotated(v.expand(1, rows * columns, 1, 8), rotation)[0, :, 0].view(rows, columns, 8) for v in (q, k)
    ]
    product = torch.einsum("abk,cdk->abcd", *at)
    assert torch.allclose(product[0, 0, 1, 2], product[2, 1, 3, 3])
    assert torch.allclose(product[0, 3, 2, 0], product[1, 4, 3, 1])
    assert not torch.allclose(product[0, 0, 1, 2], product[0, 0, 2, 1])


def test_rotary_tables_are_taken_in_fp32_before_they_are_rounded() -> None:
    tables = RotaryTables(head_size=8)
    half = tables.temporal(200, torch.zeros((), dtype=torch.bfloat16))[0]
    full = tables.temporal(200, torch.zeros(()))[0]
    assert torch.equal(half, full.to(torch.bfloat16))


def test_timestep_features_are_fp32_in_half_precision_models() -> None:
    model = tiny(condition="none")
    embed = layer_specs(model, geometry(model), seed=0)[0].build().bfloat16()
    seen: list[Tensor] = []
    embed.modulation.first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    inputs, _ = random_batch(model, geometry(model))
    embed(inputs)
    assert torch.equal(seen[0], timestep_features(inputs[1]).to(torch.bfloat16))
    # bf16 has no number between 0.5 and 0.502: in it these two timesteps would look alike.
    close = timestep_features(torch.tensor([0.5, 0.501]))
    assert (close[0] - close[1]).abs().max() > 0.5


def test_no_condition_is_a_class_of_its_own() -> None:
    model = tiny(condition="class")
    embed = layer_specs(model, geometry(model), seed=0)[0].build()
    randomise(embed)
    inputs, _ = random_batch(model, geometry(model), batch=2)
    with_class = embed((*inputs[:2], torch.tensor([0, 1])))[1]
    without = embed((*inputs[:2], torch.tensor([model.classes, model.classes])))[1]
    assert not torch.allclose(with_class, without)


def test_learned_positions_tell_frames_and_patches_apart() -> None:
    model = tiny(position="learned", condition="none")
    where = geometry(model)
    embed = layer_specs(model, where, seed=0)[0].build()
    assert isinstance(embed, Embed)
    zeros = torch.zeros(1, model.in_channels, where.frames, where.latent_height, where.latent_width)
    hidden = embed((zeros, torch.zeros(1)))[0][0].flatten(0, 2)
    assert torch.cdist(hidden, hidden).fill_diagonal_(1).min() > 1e-3


def test_attention_without_positions_ignores_the_order() -> None:
    attention = SelfAttention(8, 2, layer_generator(0, 0))
    x = torch.randn(1, 5, 8)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.allclose(attention(x, None)[:, order], attention(x[:, order], None), atol=1e-5)


def test_every_parameter_of_a_trained_layer_gets_a_gradient() -> None:
    for condition in CONDITIONS:
        block, inputs = block_of(condition)
        block(inputs)[0].square().sum().backward()
        dead = [name for name, p in block.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-6]
        assert not dead


def test_the_final_layer_reads_every_row_of_the_modulation() -> None:
    model = tiny(condition="none")
    where = geometry(model)
    final = layer_specs(model, where, seed=0)[-1].build()
    assert isinstance(final, Final)
    randomise(final)
    modulation = torch.randn(1, 12, model.hidden_size, requires_grad=True)
    final((torch.randn(1, where.frames, 2, 3, model.hidden_size), modulation)).square().sum().backward()
    assert modulation.grad is not None
    assert (modulation.grad.abs().sum(-1) > 0).all()


def weights(model_seed: int, index: int) -> list[Tensor]:
    model = tiny()
    return [p.detach() for p in layer_specs(model, geometry(model), model_seed)[index].build().parameters()]


def test_initial_weights_depend_on_seed_and_index_alone() -> None:
    first = weights(5, 2)
    torch.manual_seed(99)
    torch.rand(7)
    assert all(torch.equal(a, b) for a, b in zip(first, weights(5, 2), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, weights(6, 2), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, weights(5, 3), strict=True))


def test_building_a_layer_leaves_the_processs_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    weights(1, 1)
    assert torch.equal(torch.get_rng_state(), before)
