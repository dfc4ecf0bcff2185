"""Layer profiles: what each layer of a model costs, as exact polynomials of the sample's geometry."""

from __future__ import annotations

from pydantic import Field

from vdsgen.spec.architecture import Geometry
from vdsgen.spec.base import NonNegativeInt, PositiveInt, Spec


class Polynomial(Spec):
    """A sum of monomials in B (micro-batch), T (latent frames), S (patches a frame) and L (text tokens).

    Keys are products of the variables' letters, such as `BTSS`; the constant's key is `1`.
    """

    terms: dict[str, float]

    def at(self, micro_batch_size: int, geometry: Geometry) -> float:
        values = {
            "1": 1,
            "B": micro_batch_size,
            "T": geometry.frames,
            "S": geometry.patches,
            "L": geometry.text_tokens,
        }
        total = 0.0
        for monomial, coefficient in self.terms.items():
            product = coefficient
            for letter in monomial:
                product *= values[letter]
            total += product
        return total


class LayerCosts(Spec):
    """One layer type at one element width, traced. Bytes unless named otherwise."""

    saved_bytes: Polynomial
    """Held from forward to backward beyond the layer's own inputs and parameters."""
    output_bytes: Polynomial
    """The hidden state that the layer hands on."""
    side_bytes: Polynomial
    """Tensors this layer adds that all later layers share (modulation, text condition)."""
    forward_transient_bytes: Polynomial
    """Peak of temporaries in forward beyond what is saved and put out."""
    backward_transient_bytes: Polynomial
    """Peak of temporaries in backward beyond what was saved, parameter gradients excluded."""
    matmul_flops: Polynomial
    """Forward, matrix products outside attention; backward is twice this."""
    attention_flops: Polynomial
    """Forward, inside attention; backward is 2.5 times this (arXiv 2307.08691, section 4.1)."""
    forward_traffic_bytes: Polynomial
    """Read and written by everything that is not a matrix product, forward."""
    backward_traffic_bytes: Polynomial


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
