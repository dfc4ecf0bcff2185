"""A row about a GPT or Llama, as the sizes of a Decoder; what its columns leave out is derived or refused."""

from __future__ import annotations

import re
from typing import NamedTuple

from vdsgen.published.decoder import Decoder, Style
from vdsgen.published.notes import Facts
from vdsgen.published.public_sizes import public_sizes
from vdsgen.published.reasons import CannotExpressError
from vdsgen.published.row import Row

HEAD_SIZE = 128
"""Of most models beyond 5 B parameters; used where a row says nothing of heads."""
GPT2_VOCAB = 50257
"""Byte pairs of GPT-2, which Megatron-LM's and llm-foundry's examples use."""
LLAMA_VOCABS = ((re.compile(r"llama[- ]?3|llama3"), 128256), (re.compile(r"llama[- ]?2|llama"), 32000))
"""Llama 3.x and before (meta-llama model cards, config.json vocab_size)."""
QWEN2_VOCAB = 152064
"""Qwen2.5 from 7 B on (config.json)."""
LLAMA3_KV_HEADS = 8
"""All sizes of Llama 3.x (arXiv 2407.21783, table 3)."""
VOCAB_MULTIPLE = 128
"""Megatron-LM's --make-vocab-size-divisible-by, times the tensor-parallel size."""
FFN_MULTIPLE = 256
"""Llama's multiple_of: what its feed-forward width is rounded up to."""


class Decoded(NamedTuple):
    """A row's model on one tensor-parallel rank."""

    model: Decoder
    sequence: int
    """Tokens of one sequence on one rank."""


def decode(row: Row, facts: Facts, style: Style) -> Decoded:
    """The decoder of a row. Raises CannotExpressError where sizes are missing or do not fit together."""
    public = public_sizes(row.model)
    hidden, sequence = row.whole("hidden") or (public.hidden if public else None), row.whole("seq_len")
    if hidden is None or sequence is None:
        missing = {"hidden": hidden, "seq_len": sequence}
        raise CannotExpressError(f"no {' and '.join(name for name in missing if missing[name] is None)}")
    tensor = row.whole("tp") or 1
    pipeline = row.whole("pp") or 1
    known = public if public is not None and public.hidden == hidden else None
    layers = row.whole("layers") or (known.layers if known else _layers(row, hidden, pipeline))
    heads = row.whole("heads") or (known.heads if known else _heads(hidden, tensor))
    if hidden % heads or heads % tensor:
        raise CannotExpressError(f"{heads} heads do not divide {hidden}, or {tensor} ranks not the heads")
    if layers < pipeline:
        raise CannotExpressError(f"{layers} layers on {pipeline} stages")
    if sequence % (facts.context_parallel * tensor):
        raise CannotExpressError(f"a sequence of {sequence} on {facts.context_parallel} x {tensor} ranks")
    name = f"{row.model} {row.notes}".lower()
    words = f"{row.notes} {row.grad_ckpt}".lower().replace("-", " ")
    gated = any(word in name for word in ("llama", "qwen", "mistral", "swiglu"))
    kv_heads = facts.kv_heads or (LLAMA3_KV_HEADS if re.search(r"llama[- ]?3", name) else heads)
    kv_heads = kv_heads if heads % kv_heads == 0 and kv_heads % tensor == 0 else heads
    vocab = _rounded(facts.vocab or _vocab(name), VOCAB_MULTIPLE * tensor if style != "torch" else 1)
    tied = not gated and "untie" not in name
    model = Decoder(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        ffn=4 * hidden,
        gated=gated,
        vocab=vocab,
        tied=tied,
        positions=sequence,
        style=style,
        tensor_parallel=tensor,
        sequence_parallel=tensor > 1 and "sequence parallel" in words,
        fused_loss="fused ce" in words or "fused cross entropy" in words,
    )
    ffn = facts.ffn or (_gated_ffn(model, row.number("params_b")) if gated else 4 * hidden)
    return Decoded(model._replace(ffn=ffn), sequence // facts.context_parallel)


def _layers(row: Row, hidden: int, pipeline: int) -> int:
    """From the parameters: 12 h^2 a layer (arXiv 2104.04473, section 5), as many on each stage."""
    params_b = row.number("params_b")
    if params_b is None:
        raise CannotExpressError("no layers and no params_b")
    layers = params_b * 1e9 / (12 * hidden**2)
    return max(1, round(layers / pipeline)) * pipeline


def _heads(hidden: int, tensor: int) -> int:
    """The count nearest to heads of HEAD_SIZE that divides the width and that the ranks divide."""
    counts = [n for n in range(tensor, hidden // 32 + 1, tensor) if hidden % n == 0]
    if not counts:
        raise CannotExpressError(f"no heads, and none can be guessed for a width of {hidden}")
    return min(counts, key=lambda n: abs(n - hidden / HEAD_SIZE))


def _vocab(name: str) -> int:
    for pattern, vocab in LLAMA_VOCABS:
        if pattern.search(name):
            return vocab
    return QWEN2_VOCAB if "qwen" in name else GPT2_VOCAB


def _gated_ffn(model: Decoder, params_b: float | None) -> int:
    """Llama's 8/3 h, or what the parameters leave for three matrices a layer."""
    plain = _rounded(model.hidden * 8 // 3, FFN_MULTIPLE)
    if params_b is None:
        return plain
    attention = model._replace(ffn=0).block_parameters
    rest = params_b * 1e9 - 2 * model.vocab * model.hidden - model.layers * attention
    ffn = round(rest / (3 * model.layers * model.hidden) / FFN_MULTIPLE) * FFN_MULTIPLE
    return ffn if model.hidden <= ffn <= 8 * model.hidden else plain


def _rounded(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
