"""The layers that stand for Megatron's compute what plain torch computes, and keep what is published."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdsgen.cost.layer_bytes import LayerBytes, layer_bytes
from vdsgen.published.decoder import Decoder
from vdsgen.published.decoder_layers import Block2021, attend, build
from vdsgen.published.decoder_profile import decoder_geometry, decoder_profile
from vdsgen.published.fused import FusedCrossEntropy, MainGradLinear, SwiGlu, run

GPT = Decoder(
    layers=2,
    hidden=1024,
    heads=8,
    kv_heads=8,
    ffn=4096,
    gated=False,
    vocab=51200,
    tied=True,
    positions=512,
    style="megatron-2021",
    tensor_parallel=1,
    sequence_parallel=False,
)
LLAMA = GPT._replace(gated=True, kv_heads=2, ffn=2816, tied=False, style="megatron-core")
BATCH, LENGTH = 4, 512


def block(model: Decoder, *, selective: bool = False) -> LayerBytes:
    profile = decoder_profile(model, BATCH, LENGTH, selective=selective)
    return layer_bytes(profile, decoder_geometry(LENGTH), BATCH, "bf16")[1]


def sbh() -> int:
    return BATCH * LENGTH * GPT.hidden


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_a_block_of_2021_keeps_what_the_paper_says(ranks: int) -> None:
    """arXiv 2205.05198, equation 2: sbh (10 + 24 / t + 5 a s / h t), input included (2 sbh)."""
    scores = 5 * GPT.heads * LENGTH / (GPT.hidden * ranks)
    expected = sbh() * (8 + 24 / ranks + scores)
    assert block(GPT._replace(tensor_parallel=ranks)).saved == pytest.approx(expected, rel=0.002)


def test_sequence_parallel_shares_the_rest(ranks: int = 4) -> None:
    """Equation 4: sbh / t (34 + 5 a s / h), where inputs of products are gathered again. Ours keeps the
    gathered inputs of the four products of 2021 (4 sbh), of which the paper keeps the shard."""
    scores = 5 * GPT.heads * LENGTH / GPT.hidden
    paper = sbh() / ranks * (32 + scores)
    ours = block(GPT._replace(tensor_parallel=ranks, sequence_parallel=True)).saved
    assert ours == pytest.approx(paper + 4 * sbh() * (1 - 1 / ranks), rel=0.002)


def test_selective_recomputation_forgets_the_scores() -> None:
    """Equation 6: 34 sbh, without 5 a s^2 b."""
    assert block(GPT, selective=True).saved == pytest.approx(32 * sbh(), rel=0.002)


def test_a_core_block_keeps_shards_and_no_scores() -> None:
    """Norms' outputs, the residual between, q, k, v, attention's output and sums, gate, up, their product."""
    heads, ranks = LLAMA.heads, 2
    kept = block(LLAMA._replace(tensor_parallel=ranks, sequence_parallel=True)).saved
    width = LLAMA.hidden + 2 * LLAMA.kv_heads * LLAMA.head_size + LLAMA.hidden + 3 * LLAMA.ffn
    elements = BATCH * LENGTH * (3 * LLAMA.hidden + width) / ranks
    assert kept == pytest.approx(2 * elements + 4 * BATCH * LENGTH * heads / ranks, rel=0.002)


def test_flops_are_the_formulas() -> None:
    """2 a parameter and token, and 4 s h a token for attention, half of it where the mask is skipped."""
    profile = decoder_profile(LLAMA, BATCH, LENGTH)
    costs = profile.layer_types["block"].half
    geometry = decoder_geometry(LENGTH)
    tokens = BATCH * LENGTH
    assert costs.matmul_flops.at(1, geometry) == 2 * LLAMA.block_parameters * tokens
    assert costs.attention_flops.at(1, geometry) == 2 * LENGTH * LLAMA.hidden * tokens
    spread = decoder_profile(LLAMA, BATCH, LENGTH, context_parallel=4).layer_types["block"].half
    assert spread.attention_flops.at(1, geometry) == 4 * costs.attention_flops.at(1, geometry)


def test_tensor_parallel_ranks_share_the_parameters() -> None:
    whole = decoder_profile(LLAMA, BATCH, LENGTH).layer_types["block"]
    share = decoder_profile(LLAMA._replace(tensor_parallel=2), BATCH, LENGTH).layer_types["block"]
    norms = 2 * LLAMA.hidden
    assert whole.parameters - norms == LLAMA.block_parameters
    assert share.parameters - norms == LLAMA.block_parameters // 2


def gradients(result: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(result.square().sum(), inputs)


def test_the_gated_unit_computes_what_torch_does() -> None:
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    gate, up = x.chunk(2, dim=-1)
    plain, ours = F.silu(gate) * up, run(SwiGlu, x)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(gradients(ours, [x]), gradients(plain, [x]))


def test_the_loss_computes_what_torch_does_up_to_the_target() -> None:
    """Which token is the target changes no size, so the stand-in leaves it out: log-sum-exp alone."""
    logits = torch.randn(2, 3, 11, dtype=torch.float64, requires_grad=True)
    peak = logits.amax(-1, keepdim=True).detach()
    plain = (logits - peak).exp().sum(-1).log()
    ours = run(FusedCrossEntropy, logits, torch.zeros(2, 3, dtype=torch.int64))
    torch.testing.assert_close(ours.double(), plain, rtol=1e-5, atol=1e-6)


def test_a_product_adds_its_gradient_to_the_accumulator() -> None:
    x = torch.randn(2, 3, 4, requires_grad=True)
    weight = nn.Parameter(torch.randn(5, 4))
    plain = gradients(x @ weight.t(), [x, weight])
    weight.grad = torch.zeros_like(weight)
    ours = run(MainGradLinear, x, weight, 1, False)
    torch.autograd.backward(ours.square().sum())
    assert x.grad is not None
    torch.testing.assert_close(x.grad, plain[0])
    torch.testing.assert_close(weight.grad, plain[1])


def test_attention_is_causal_attention() -> None:
    query, key, value = (torch.randn(2, 5, 3 * 8) for _ in range(3))
    heads = [x.view(2, 5, 3, 8).transpose(1, 2) for x in (query, key, value)]
    plain = (
        F.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        .transpose(1, 2)
        .reshape(2, 5, 24)
    )
    torch.testing.assert_close(attend(query, key, value, 8), plain)


def test_a_block_of_2021_is_a_transformer_layer() -> None:
    """Real numbers through it: finite, of the input's shape, and every weight gets a gradient."""
    torch.manual_seed(0)
    layer = build(GPT._replace(hidden=32, heads=4, ffn=64), "block")
    assert isinstance(layer, Block2021)
    hidden = torch.randn(2, 6, 32, requires_grad=True)
    result = layer((hidden,))
    torch.autograd.backward(result.sum())
    assert result.shape == hidden.shape
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
