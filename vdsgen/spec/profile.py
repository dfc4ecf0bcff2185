"""Layer profiles: what each layer of a model costs, as exact polynomials of the sample's geometry."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from vdsgen.spec.architecture import Geometry
from vdsgen.spec.base import NonNegativeInt, PositiveInt, Spec, SpecWithOptions
from vdsgen.spec.linear_precision import EightBit, LinearPrecision

ATTENTION_TILE = 128
"""What CUDA's flash attention rounds a sequence up to for its fp32 gradient accumulator."""

TENSOR_PARALLEL_SIZES = (2, 4, 8)
"""Ranks that share a layer in profiles, where they divide its heads: a node's GPUs, by halves."""

AttentionKernel = Literal["flash", "efficient", "math"]
"""PyTorch's attention implementations: flash (half precision from sm80 on), efficient (CUTLASS, which
fp32, masks and older GPUs take) and math (batched matrix products with the scores in memory)."""

Width = Literal["half", "single", "mixed"]
"""Weights and activations in two bytes, in four, or fp32 weights under bf16 autocast."""

OTHER_ATTENTION: tuple[tuple[Width, AttentionKernel], ...] = (
    ("half", "math"),
    ("single", "efficient"),
    ("single", "math"),
)
"""What is traced beside flash attention. In half precision the efficient kernel keeps and needs what flash
does: the output, fp32 log-sums, and in backward the query's gradient in fp32."""


def _tiled(length: int) -> int:
    return -(-length // ATTENTION_TILE) * ATTENTION_TILE


def _sharing(monomial: str, ranks: int) -> int:
    return ranks if "S" in monomial or "s" in monomial else 1


class Polynomial(Spec):
    """A sum of monomials with integer coefficients, exact at every geometry.

    Keys are products of variables, one letter each, such as `BTSS`; the constant's key is `1`. B is the
    micro-batch size, T latent frames, S patches a frame, L text tokens, R the rank of adapters. Lower-case
    t, s, l, n and j are T, S, L, T * S and T * S + L rounded up to ATTENTION_TILE.

    Of ranks that share a sample each has its part of everything that grows with the patches: they split the
    sequences that attend side by side, not those within one (model/layers/sequence_parallel.py), so a
    monomial with S or s is shared, and n counts a rank's own tokens.
    """

    terms: dict[str, int]

    def at(self, micro_batch_size: int, geometry: Geometry, rank: int = 0) -> int:
        """Its value; `rank` is R, of profiles with adapters whose rank is still open."""
        ranks = geometry.sequence_parallel_size
        tokens = geometry.frames * geometry.patches // ranks
        values = {
            "1": 1,
            "B": micro_batch_size,
            "T": geometry.frames,
            "S": geometry.patches,
            "L": geometry.text_tokens,
            "t": _tiled(geometry.frames),
            "s": _tiled(geometry.patches),
            "l": _tiled(geometry.text_tokens),
            "n": _tiled(tokens),
            "j": _tiled(tokens + geometry.text_tokens),
            "R": rank,
        }
        return sum(
            coefficient * math.prod(values[letter] for letter in monomial) // _sharing(monomial, ranks)
            for monomial, coefficient in self.terms.items()
        )

    def with_rank(self, rank: int) -> Polynomial:
        """The same with R settled."""
        terms: dict[str, int] = {}
        for monomial, coefficient in self.terms.items():
            rest = monomial.replace("R", "") or "1"
            terms[rest] = terms.get(rest, 0) + coefficient * rank ** monomial.count("R")
        return Polynomial(terms={monomial: terms[monomial] for monomial in sorted(terms)})


class Peak(Spec):
    """The largest of several polynomials: which operator is the peak depends on the geometry."""

    candidates: tuple[Polynomial, ...] = Field(min_length=1)

    def at(self, micro_batch_size: int, geometry: Geometry) -> int:
        return max(polynomial.at(micro_batch_size, geometry) for polynomial in self.candidates)

    def with_rank(self, rank: int) -> Peak:
        """The same with R settled."""
        return Peak(candidates=tuple(polynomial.with_rank(rank) for polynomial in self.candidates))


class Recomputation(Spec):
    """What the layer costs inside torch's non-reentrant checkpoint, beside its forward: traced, not derived.

    Recomputation ends early, once everything that backward needs is there again (the layer's last
    additions are not repeated). DeepSpeed's own checkpoint function repeats the whole layer.
    """

    recomputed_bytes: Polynomial
    """Made again and kept for backward."""
    recomputed_matmul_flops: Polynomial
    recomputed_attention_flops: Polynomial
    recomputed_traffic_bytes: Polynomial
    peak_bytes: Peak
    """Peak over recomputation and backward, beyond what exists before: inputs, parameters, accumulators. It
    includes the gradients of outputs and inputs."""


class SelectiveRecomputation(Recomputation):
    """The same where the outputs of matrix products and attention are kept (model/selective.py). `peak_bytes`
    is beyond `saved_bytes` too."""

    saved_bytes: Polynomial
    """Held from forward to backward beyond the layer's own inputs, parameters and outputs."""
    forward_transient_bytes: Peak
    """As of LayerCosts, beyond these saved bytes."""
    recomputed_kernels: NonNegativeInt
    """Operators that launch a kernel once more."""


class PackedActivations(Spec):
    """What checkpointing keeps of the layer where that is packed into a byte an element
    (model/activation_compression.py); int8 and fp8 take as many bytes."""

    output_bytes: Polynomial
    """Of the hidden state that the layer hands on."""
    packing_traffic_bytes: Polynomial
    """Read and written by packing that hidden state."""
    unpacking_traffic_bytes: Polynomial
    selective: SelectiveRecomputation
    """Products are packed too. Its recomputation unpacks them."""
    selective_packing_traffic_bytes: Polynomial
    """What packing the products adds to forward's traffic."""


class EightBitProducts(Spec):
    """Matrix products of a layer that are computed in 8 bits."""

    precision: EightBit
    matmul_flops: Polynomial
    """Forward; part of the layer's own."""


class LayerCosts(SpecWithOptions):
    """One layer type at one element width, traced. Bytes unless named otherwise."""

    written_where_set: ClassVar[frozenset[str]] = frozenset(
        {"constant_bytes", "eight_bit", "unsaved_input_bytes"}
    )

    saved_bytes: Polynomial
    """Held from forward to backward beyond the layer's own inputs and parameters."""
    output_bytes: Polynomial
    """The hidden state that the layer hands on; of the last layer, its fp32 prediction."""
    side_bytes: Polynomial
    """Tensors this layer adds that all later layers share (modulation, text condition)."""
    constant_bytes: Polynomial | None = None
    """Tensors that follow from shapes alone, which a stage makes once for all of its layers (rotary tables);
    None: not counted."""
    unsaved_input_bytes: Polynomial | None = None
    """Of the hidden state that the layer is given, what it does not save, since it only copies, casts or
    joins it: without a checkpoint around the layer, free once it has run forward. None: it saves all."""
    forward_transient_bytes: Peak
    """Peak of temporaries in forward beyond what is held at its end: saved, output and side."""
    backward_transient_bytes: Peak
    """Peak of temporaries in backward beyond saved_bytes. It includes the gradients of the layer's outputs
    and inputs and each new parameter gradient until it is added to its accumulator; the accumulators
    themselves are excluded, and so is the layer's output, which this layer's backward does not need."""
    matmul_flops: Polynomial
    """Forward, matrix products outside attention."""
    attention_flops: Polynomial
    """Forward, inside attention."""
    backward_matmul_flops: Polynomial | None = None
    """None: twice the forward's. Frozen weights need one product, not two."""
    backward_attention_flops: Polynomial | None = None
    """None: 2.5 times the forward's, as scores are computed again (arXiv 2307.08691, section 4.1)."""
    forward_traffic_bytes: Polynomial
    """Read and written by everything that is not a matrix product; attention's queries, keys, values and
    outputs are included, because short sequences (temporal attention) are bound by them."""
    backward_traffic_bytes: Polynomial
    """The same, backward."""
    checkpointed: Recomputation | None = None
    """None: not traced."""
    selective: SelectiveRecomputation | None = None
    """None: not traced, and not searched."""
    packed: PackedActivations | None = None
    """None: not traced, and not searched."""
    eight_bit: EightBitProducts | None = None
    """Of layers whose products are not told apart by shape. Profiles are traced without."""

    def with_rank(self, rank: int) -> LayerCosts:
        """The same with the adapters' rank settled."""
        return _with_rank(self, rank)


class Product(SpecWithOptions):
    """Equal matrix products in a layer's forward: (rows x depth) times (depth x columns)."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"precision"})

    rows: Polynomial
    """Tokens (or samples) that the product runs over."""
    columns: PositiveInt
    depth: PositiveInt
    count: PositiveInt = 1
    precision: LinearPrecision = "exact"
    """What it is computed in; exact: the layer's own dtype. Profiles are traced so."""


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


class Collective(Spec):
    """Equal collectives between the tensor-parallel ranks that share a layer, in one pass of it."""

    kind: Literal["all_reduce", "all_gather"]
    phase: Literal["forward", "backward"]
    """Recomputation repeats those of forward."""
    elements: Polynomial
    """Of the whole result, which has the activations' dtype."""
    count: PositiveInt = 1


class LayerType(SpecWithOptions):
    """One kind of layer."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"skips"})

    parameters: NonNegativeInt
    trainable_parameters: NonNegativeInt
    parameter_shapes: tuple[tuple[PositiveInt, ...], ...]
    """Of the parameters that train, in the order the module registers them: what ZeRO's padding and
    partitions depend on."""
    is_block: bool
    """Counts towards the checkpoint interval; every pipeline stage needs one."""
    skips: Literal[-1, 0, 1] = 0
    """1: the hidden state that this layer gets waits for a later one; -1: this layer joins the last that
    waits. Of U-Nets."""
    half: LayerCosts
    """At two bytes an element (bf16, fp16), with flash attention (masks: efficient)."""
    single: LayerCosts
    """At four bytes an element (fp32), with the processor's flash attention, which needs no workspace."""
    mixed: LayerCosts | None = None
    """fp32 weights under bf16 autocast, with flash attention; None: not traced. saved_bytes includes the
    bf16 copies of weights."""
    other_attention: dict[str, LayerCosts] = Field(default_factory=dict)
    """`half/efficient` and so on: the costs with other attention implementations where they differ."""
    products: tuple[Product, ...] = ()
    """Matrix products by shape: how fast they run depends on it. What is left out of `matmul_flops` is taken
    for one large product."""
    attentions: tuple[Attention, ...] = ()
    """Attention by shape; what is left out of `attention_flops` is taken for long sequences."""
    forward_kernels: NonNegativeInt = 0
    """Operators that launch a kernel, forward."""
    backward_kernels: NonNegativeInt = 0
    collectives: tuple[Collective, ...] | None = None
    """Between ranks that share the layer; None where none do."""

    @property
    def parameter_sizes(self) -> tuple[int, ...]:
        """Elements of each parameter."""
        return tuple(math.prod(shape) for shape in self.parameter_shapes)

    def costs(self, width: Width, kernel: AttentionKernel = "flash") -> LayerCosts:
        """With one attention implementation. Raises ValueError where it was not traced."""
        costs = {"half": self.half, "single": self.single, "mixed": self.mixed}[width]
        if costs is None or (kernel != "flash" and width == "mixed"):
            raise ValueError(f"no trace of {width} precision with {kernel} attention")
        return self.other_attention.get(f"{width}/{kernel}", costs)


class ModelProfile(SpecWithOptions):
    """The layers of one model in order, with what each costs."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"most_samples"})

    schema_version: int = 2
    model: str
    architecture_sha256: str
    """Of the canonical JSON of the sizes that were traced."""
    torch_version: str
    layer_types: dict[str, LayerType]
    layers: tuple[str, ...] = Field(min_length=1)
    """Name of each pipeline layer's type."""
    tensor_parallel: dict[PositiveInt, dict[str, LayerType]] | None = None
    """What one rank has of layers that so many share, by their names: parameters, costs, shapes. Types that
    are not named are on every rank as they are. None: not traced."""
    most_samples: PositiveInt | None = None
    """Of a micro-batch, where larger ones cost otherwise than these figures say."""

    @property
    def tensor_parallel_sizes(self) -> tuple[int, ...]:
        """Ranks that may share layers, rising."""
        return (1, *sorted(self.tensor_parallel or ()))

    def shared_by(self, ranks: int) -> ModelProfile:
        """One rank's part of the model where so many share its layers. Raises ValueError for a number that
        was not traced."""
        if ranks == 1:
            return self
        split = (self.tensor_parallel or {}).get(ranks)
        if split is None:
            known = ", ".join(str(size) for size in self.tensor_parallel_sizes)
            raise ValueError(f"the profile of {self.model} is of tensor parallel sizes {known}, not {ranks}")
        return self.model_copy(update={"layer_types": {**self.layer_types, **split}, "tensor_parallel": None})

    @property
    def parameters(self) -> int:
        return sum(self.layer_types[name].parameters for name in self.layers)

    @property
    def trainable_parameters(self) -> int:
        return sum(self.layer_types[name].trainable_parameters for name in self.layers)

    def with_attention(self, kernel: AttentionKernel) -> ModelProfile:
        """The same model on one tensor-parallel rank where `half` and `single` run this implementation, and
        only this one.

        Raises ValueError where it was not traced.
        """
        if kernel == "flash":
            return self
        if not any(layer.other_attention for layer in self.layer_types.values()):
            raise ValueError(f"the profile of {self.model} has no trace with {kernel} attention")
        types = {
            name: layer.model_copy(
                update={
                    "half": layer.costs("half", kernel),
                    "single": layer.costs("single", kernel),
                    "other_attention": {},
                }
            )
            for name, layer in self.layer_types.items()
        }
        return self.model_copy(update={"layer_types": types, "tensor_parallel": None})


def _with_rank(value: LayerCosts, rank: int) -> LayerCosts:
    """Every polynomial and peak with R settled."""

    def settled(one: object) -> object:
        if isinstance(one, Polynomial | Peak):
            return one.with_rank(rank)
        if isinstance(one, Recomputation | PackedActivations | LayerCosts):
            changed = {name: settled(getattr(one, name)) for name in type(one).model_fields}
            return one.model_copy(update=changed)
        return one

    result = settled(value)
    assert isinstance(result, LayerCosts)
    return result
