"""Sizes of a decoder-only transformer (GPT, Llama), as one tensor-parallel rank runs it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Style = Literal["megatron-2021", "megatron-core", "torch"]
"""Whose layer it is: which tensors are kept for backward differs, the arithmetic does not.

* megatron-2021: Megatron-LM up to v3 in half precision. Dropout, attention as batched products with a fused
  softmax, every tensor parallel block entered and left whole (arXiv 1909.08053, section 3).
* megatron-core: with Transformer Engine. Sequence parallel (arXiv 2205.05198, section 4.2.2), flash
  attention, no dropout, weight gradients added to fp32 gradients inside the product, fused cross entropy.
* torch: plain torch modules with scaled_dot_product_attention (llm-foundry, torchtitan).
"""

DROPOUT = 0.1
"""Megatron-LM's default of --attention-dropout and --hidden-dropout; the value changes no size."""


class Decoder(NamedTuple):
    """Sizes and the way they are run. Numbers of the whole model unless named otherwise."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    """Width of the feed-forward network's hidden layer (of each half of a gated one)."""
    gated: bool
    """SwiGLU, RMSNorm and rotary positions, as in Llama; else GELU, LayerNorm and learned positions."""
    vocab: int
    """Rows of the embedding, padding included."""
    tied: bool
    """The output projection is the embedding; with a pipeline its last stage holds a copy."""
    positions: int
    """Rows of learned positions: the longest sequence."""
    style: Style
    tensor_parallel: int
    sequence_parallel: bool
    fused_loss: bool = True
    """megatron-core: cross entropy keeps one fp32 copy of the logits, not two."""

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def block_parameters(self) -> int:
        """Weights of one block's matrices, all ranks together."""
        attention = self.hidden * (2 * self.hidden + 2 * self.kv_heads * self.head_size)
        return attention + (3 if self.gated else 2) * self.hidden * self.ffn
