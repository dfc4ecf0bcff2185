"""One layer's trace: the same on every kind of tensor, and equal to closed forms."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.model.sizes import geometry, random_batch, tiny
from vdsgen.model.pipeline import layer_specs
from vdsgen.profile.kernels import ChosenAttention, hidden_temporary_bytes
from vdsgen.profile.ledger import Ledger
from vdsgen.profile.trace import (
    LAYER_INDEX,
    Kind,
    Run,
    empty_inputs,
    empty_layer,
    empty_tensors,
    trace_layer,
    traced,
    traced_checkpointed,
)
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.profile import AttentionKernel

KINDS: list[Kind] = ["embed", "block", "final"]
KERNELS: tuple[AttentionKernel, ...] = ("flash", "efficient", "math")
MODELS = {
    "text": tiny(),
    "class": tiny(condition="class"),
    "learned": tiny(condition="none", position="learned"),
}
aten = torch.ops.aten


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_real_and_fake_tensors_give_the_same_trace(name: str, kind: Kind, dtype: torch.dtype) -> None:
    """With numbers in them, torch's own choice of attention kernel, and storages: the same books."""
    model = MODELS[name]
    where = geometry(model)
    layers = [spec.build().to(dtype) for spec in layer_specs(model, where, seed=0)]
    x = random_batch(model, where)[0]
    with torch.no_grad():
        for layer in layers[: LAYER_INDEX[kind] % len(layers)]:
            x = layer(x)
    layer = layers[LAYER_INDEX[kind]]
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    inputs = x if kind == "embed" else tuple(y.detach().requires_grad_() for y in x)
    assert traced(layer, inputs) == trace_layer(model, 2, where, kind, dtype, tensors=FakeTensorMode)


@given(
    batch=st.integers(2, 3),
    frames=st.integers(2, 6),
    rows=st.integers(2, 4),
    columns=st.integers(2, 5),
    text_tokens=st.integers(2, 7),
)
@settings(max_examples=5)
def test_real_blocks_save_and_recompute_what_their_trace_says(
    batch: int, frames: int, rows: int, columns: int, text_tokens: int
) -> None:
    """At any size, with numbers in them, plain and inside torch's checkpoint."""
    model = MODELS["text"]
    where = geometry(model, frames, rows, columns, text_tokens)
    found = []
    for tensors in (nullcontext, empty_tensors):
        with tensors():
            layer = empty_layer(model, where, "block", torch.float32)
            inputs = empty_inputs(model, batch, where, "block", torch.float32)
            found.append((traced(layer, inputs), traced_checkpointed(layer, inputs)))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_recomputation_ends_once_everything_saved_is_there_again(kind: Kind) -> None:
    """What is made again is what a plain run saves; a last product whose result nobody saves is left out."""
    model = MODELS["text"]
    where = geometry(model)
    with empty_tensors():
        layer = empty_layer(model, where, kind, torch.float32)
        inputs = empty_inputs(model, 2, where, kind, torch.float32)
        plain, inside = traced(layer, inputs), traced_checkpointed(layer, inputs)
    assert inside.recomputed_bytes == plain.saved_bytes
    assert inside.recomputed_attention_flops == plain.attention_flops
    if kind == "block":
        assert inside.recomputed_matmul_flops == plain.matmul_flops
    else:
        assert inside.recomputed_matmul_flops < plain.matmul_flops
    assert inside.recomputed_traffic_bytes <= plain.forward_traffic_bytes
    backward = plain.saved_bytes + max(plain.backward_temporaries)
    assert 0.95 * backward < max(inside.moments) <= backward + plain.output_bytes + plain.side_bytes


def test_a_checkpoint_peaks_where_torchs_own_run_does() -> None:
    """Without the tracer's help: the ledger around torch's checkpoint of a real block."""
    model = MODELS["text"]
    where = geometry(model)
    layer = empty_layer(model, where, "block", torch.float32)
    inputs = empty_inputs(model, 2, where, "block", torch.float32)
    layer(inputs)  # makes the rotary tables
    tables = [t for pair in layer.rotary._cache.values() for t in pair]  # type: ignore[union-attr, operator]
    ledger = Ledger([*inputs, *layer.parameters(), *(p.grad for p in layer.parameters()), *tables])  # type: ignore[list-item]
    with ledger:
        outputs = checkpoint(lambda *x: layer(x), *inputs, use_reentrant=False, preserve_rng_state=False)
        held = ledger.close_phase().end
        output = outputs[0]
        torch.autograd.backward(output, torch.ones_like(output))
        backward = ledger.close_phase()
    assert held == output.untyped_storage().nbytes(), "a checkpoint holds inputs and output alone"
    traced_peak = max(traced_checkpointed(layer, inputs).moments)
    assert max(backward.moments) == pytest.approx(traced_peak + held, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_with_scores_in_memory_saves_them(dtype: torch.dtype) -> None:
    """Softmax's output of each of three attentions, in fp32 always, and queries and keys that were scaled."""
    model, batch = MODELS["text"], 2
    where = geometry(model, frames=5, rows=6, columns=7, text_tokens=9)
    traces = {}
    for kernel in KERNELS:
        with torch.device("meta"), ChosenAttention(kernel):
            layer = empty_layer(model, where, "block", dtype)
            inputs = empty_inputs(model, batch, where, "block", dtype)
            traces[kernel] = traced(layer, inputs, Run(kernel))
    tokens = batch * where.frames * where.patches
    scores = tokens * (where.patches + where.frames + where.text_tokens) * model.heads * 4
    more = traces["math"].saved_bytes - traces["flash"].saved_bytes
    assert scores < more < 3 * scores
    assert traces["math"].attention_flops == traces["flash"].attention_flops
    assert traces["math"].backward_attention_flops == 2 * traces["math"].attention_flops
    assert traces["efficient"].saved_bytes == traces["flash"].saved_bytes
    workspace = max(traces["efficient"].backward_temporaries) - max(traces["flash"].backward_temporaries)
    assert workspace == 0 if dtype == torch.bfloat16 else workspace > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_tensors_without_storage_give_the_same_trace(name: str, kind: Kind) -> None:
    model = MODELS[name]
    where = geometry(model)
    on_cpu = trace_layer(model, 2, where, kind, torch.float32, tensors=FakeTensorMode)
    assert trace_layer(model, 2, where, kind, torch.float32) == on_cpu


def test_in_half_precision_norms_keep_fp32_statistics_as_on_a_gpu() -> None:
    """Mean and deviation of four norms of every token, and of queries and keys of two heads, twice."""
    model = tiny(condition="none")
    where = geometry(model)
    on_cpu = trace_layer(model, 2, where, "block", torch.bfloat16, tensors=FakeTensorMode)
    on_gpu = trace_layer(model, 2, where, "block", torch.bfloat16)
    statistics = 2 * (4 + 2 * 2 * 2) * 2 * where.frames * where.patches
    assert on_gpu.saved_bytes - on_cpu.saved_bytes == 2 * statistics


@pytest.mark.parametrize("kind", KINDS)
def test_both_half_precisions_cost_the_same(kind: Kind) -> None:
    model = MODELS["text"]
    where = geometry(model)
    assert trace_layer(model, 3, where, kind, torch.bfloat16) == trace_layer(
        model, 3, where, kind, torch.float16
    )


def linear_flops(model: Vdt, batch: int) -> int:
    """Forward matrix products of a block: two for each weight of a linear and token that it sees."""
    where = geometry(model)
    width, tokens = model.hidden_size, batch * where.frames * where.patches
    weights = 2 * 4 * width**2 + width**2 + 2 * width * model.mlp_hidden_size
    flops = 2 * tokens * weights
    if model.condition == "text":
        flops += 2 * tokens * 2 * width**2 + 2 * batch * where.text_tokens * 2 * width**2
    return flops


@pytest.mark.parametrize("name", MODELS)
def test_a_blocks_flops_are_those_of_the_closed_form(name: str) -> None:
    model, batch = MODELS[name], 3
    where = geometry(model)
    trace = trace_layer(model, batch, where, "block", torch.float32)
    assert trace.matmul_flops == linear_flops(model, batch)
    # Two products of (length x length x head size) a head: q k^T and the weighted sum of v.
    lengths = where.patches + where.frames + where.text_tokens
    tokens = batch * where.frames * where.patches
    assert trace.attention_flops == 4 * tokens * lengths * model.hidden_size


@pytest.mark.parametrize("name", MODELS)
def test_backward_flops_are_the_multiples_that_the_profile_states(name: str) -> None:
    trace = trace_layer(MODELS[name], 2, geometry(MODELS[name]), "block", torch.float32)
    assert trace.backward_matmul_flops == 2 * trace.matmul_flops
    assert trace.backward_attention_flops == 2.5 * trace.attention_flops


def test_a_block_saves_what_can_be_counted_by_hand() -> None:
    """Per token of width D, elements: see each line of the block."""
    model = tiny(condition="none", mlp_hidden_size=72, hidden_size=24, heads=2)
    where = geometry(model)
    batch, width, heads = 2, 24, 2
    tokens = batch * where.frames * where.patches
    attention = (
        1  # normalised input, for the scale's gradient
        + 1  # modulated: the linear's input
        + 3  # queries, keys, values in one tensor
        + 2  # rotated queries and keys
        + 1  # attention's output: its own backward's and the next linear's
        + 1  # update, for the gate's gradient
    )
    convolution = 1 + 1 + 1 + 1  # normalised, modulated, mixed over time, update
    mlp = 1 + 1 + 3 + 3 + 1  # normalised, modulated, before and after GELU at 3 D, update
    between = 3  # hidden states between the four sublayers
    elements = (2 * attention + convolution + mlp + between) * width
    statistics = 4 * 2  # mean and deviation of four norms
    statistics += 2 * 2 * 2 * heads  # of queries' and keys' norms, each head
    statistics += 2 * heads  # attention's log-sums, fp32
    # scales + 1 for four sublayers, and all rows (their gates are read in backward)
    rows = (4 + 12) * width * batch
    expected = 4 * (tokens * (elements + statistics) + rows)
    assert trace_layer(model, batch, where, "block", torch.float32).saved_bytes == expected


def test_the_ledger_counts_births_and_deaths() -> None:
    known = torch.zeros(1000)
    ledger = Ledger([known])
    with ledger:
        first = known * 2
        view = first[10:]
        del first
        assert ledger.alive() == 4000, "a view keeps its storage"
        second = view + 1
        del view
        ledger.close_phase()
        assert ledger.alive() == 3960
        known.add_(1)
        entry = ledger.close_phase()
    assert entry.end == 3960
    assert entry.moments == (3960,)
    assert entry.traffic_bytes == 2 * 4000
    assert second.numel() == 990


def test_the_ledger_counts_broadcast_reads_once_and_views_not_at_all() -> None:
    rows, columns = torch.zeros(8, 1), torch.zeros(8, 100)
    with Ledger([rows, columns]) as ledger:
        columns.t().view(100, 8)
        assert ledger.close_phase().traffic_bytes == 0
        torch.add(rows.expand(8, 100), columns)
        assert ledger.close_phase().traffic_bytes == 8 * 4 + 2 * 3200


def test_norms_of_strided_inputs_copy_them() -> None:
    x = torch.zeros(4, 6, 8).transpose(0, 1)
    func = aten.native_layer_norm.default
    assert hidden_temporary_bytes(func, (x,)) == 4 * 6 * 8 * 4
    assert hidden_temporary_bytes(func, (x.contiguous(),)) == 0


def test_flash_attention_accumulates_whole_tiles() -> None:
    func = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    query = torch.zeros(5, 3, 16, 48, dtype=torch.bfloat16)
    assert hidden_temporary_bytes(func, (None, query)) == 5 * 3 * 128 * (64 + 1) * 4
    assert hidden_temporary_bytes(func, (None, query.float())) == 5 * 3 * 16 * 4


def test_torch_takes_its_flash_kernel_for_our_attention() -> None:
    q = torch.randn(2, 7, 3, 8, requires_grad=True).transpose(1, 2)
    out = F.scaled_dot_product_attention(q, q, q)
    assert type(out.grad_fn).__name__ == "ScaledDotProductFlashAttentionForCpuBackward0"
    assert out.transpose(1, 2).is_contiguous(), "positions come before heads, as on CUDA"
