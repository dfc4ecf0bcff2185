"""Layer profiles: what each layer of a model costs, as exact polynomials of the sample's geometry."""

from __future__ import annotations

import math

from pydantic import Field

from vdsgen.spec.architecture import Geometry
from vdsgen.spec.base import NonNegativeInt, PositiveInt, Spec

ATTENTION_TILE = 128
"""What CUDA's flash attention rounds a sequence up to for its fp32 gradient accumulator."""


def _tiled(length: int) -> int:
    return -(-length // ATTENTION_TILE) * ATTENTION_TILE


class Polynomial(Spec):
    """A sum of monomials with integer coefficients, exact at every geometry.

    Keys are products of variables, one letter each, such as `BTSS`; the constant's key is `1`. B is the
    micro-batch size, T latent frames, S patches a frame, L text tokens. Lower-case t, s and n are T, S and
    T * S rounded up to ATTENTION_TILE.
    """

    terms: dict[str, int]

    def at(self, micro_batch_size: int, geometry: Geometry) -> int:
        values = {
            "1": 1,
            "B": micro_batch_size,
            "T": geometry.frames,
            "S": geometry.patches,
            "L": geometry.text_tokens,
            "t": _tiled(geometry.frames),
            "s": _tiled(geometry.patches),
            "n": _tiled(geometry.frames * geometry.patches),
        }
        return sum(
            coefficient * math.prod(values[letter] for letter in monomial)
            for monomial, coefficient in self.terms.items()
        )


class Peak(Spec):
    """The largest of several polynomials: which operator is the peak depends on the geometry."""

    candidates: tuple[Polynomial, ...] = Field(min_length=1)

    def at(self, micro_batch_size: int, geometry: Geometry) -> int:
        return max(polynomial.at(micro_batch_size, geometry) for polynomial in self.candidates)


class LayerCosts(Spec):
    """One layer type at one element width, traced. Bytes unless named otherwise."""

    saved_bytes: Polynomial
    """Held from forward to backward beyond the layer's own inputs and parameters."""
    output_bytes: Polynomial
    """The hidden state that the layer hands on; of the last layer, its fp32 prediction."""
    side_bytes: Polynomial
    """Tensors this layer adds that all later layers share (modulation, text condition)."""
    forward_transient_bytes: Peak
    """Peak of temporaries in forward beyond what is held at its end: saved, output and side."""
    backward_transient_bytes: Peak
    """Peak of temporaries in backward beyond saved_bytes. It includes the gradients of the layer's outputs
    and inputs and each new parameter gradient until it is added to its accumulator; the accumulators
    themselves are excluded, and so is the layer's output, which this layer's backward does not need."""
    matmul_flops: Polynomial
    """Forward, matrix products outside attention; backward is twice this."""
    attention_flops: Polynomial
    """Forward, inside attention; backward is 2.5 times this (arXiv 2307.08691, section 4.1)."""
    forward_traffic_bytes: Polynomial
    """Read and written by everything that is not a matrix product; attention's queries, keys, values and
    outputs are included, because short sequences (temporal attention) are bound by them."""
    backward_traffic_bytes: Polynomial
    """The same, backward."""


class Product(Spec):
    """Equal matrix products in a layer's forward: (rows x depth) times (depth x columns)."""

    rows: Polynomial
    """Tokens (or samples) that the product runs over."""
    columns: PositiveInt
    depth: PositiveInt
    count: PositiveInt = 1


class Attention(Spec):
    """Equal attention operators in a layer's forward. Sequences side by side and their lengths follow from
    FLOPs and rows: flops = 4 x heads x head_size x query_rows x length of the keys."""

    flops: Polynomial
    query_rows: Polynomial
    """Queries of all sequences, heads not counted."""
    key_rows: Polynomial
    heads: PositiveInt
    head_size: PositiveInt
    count: PositiveInt = 1


class LayerType(Spec):
    """One kind of layer."""

    parameters: NonNegativeInt
    trainable_parameters: NonNegativeInt
    parameter_shapes: tuple[tuple[PositiveInt, ...], ...]
    """In the order the module registers them: what ZeRO's padding and partitions depend on."""
    is_block: bool
    """Counts towards the checkpoint interval; every pipeline stage needs one."""
    half: LayerCosts
    """At two bytes an element (bf16, fp16)."""
    single: LayerCosts
    """At four bytes an element (fp32)."""
    products: tuple[Product, ...] = ()
    """Matrix products by shape: how fast they run depends on it. What is left out of `matmul_flops` is taken
    for one large product."""
    attentions: tuple[Attention, ...] = ()
    """Attention by shape; what is left out of `attention_flops` is taken for long sequences."""
    forward_kernels: NonNegativeInt = 0
    """Operators that launch a kernel, forward."""
    backward_kernels: NonNegativeInt = 0

    @property
    def parameter_sizes(self) -> tuple[int, ...]:
        """Elements of each parameter."""
        return tuple(math.prod(shape) for shape in self.parameter_shapes)


class ModelProfile(Spec):
    """The layers of one model in order, with what each costs."""

    schema_version: int = 1
    model: str
    architecture_sha256: str
    """Of the canonical JSON of the sizes that were traced."""
    torch_version: str
    layer_types: dict[str, LayerType]
    layers: tuple[str, ...] = Field(min_length=1)
    """Name of each pipeline layer's type."""

    @property
    def parameters(self) -> int:
        return sum(self.layer_types[name].parameters for name in self.layers)

    @property
    def trainable_parameters(self) -> int:
        return sum(self.layer_types[name].trainable_parameters for name in self.layers)
