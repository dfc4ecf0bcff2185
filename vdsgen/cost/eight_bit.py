"""A model's costs where linear layers of its blocks multiply in 8 bits (model/low_precision).

What such a layer keeps for backward is what the exact one keeps, and its products have the same sizes. Added
are what products hold beside their results while they run, and the traffic of quantising their operands. The
first is an upper bound: every peak of a layer is taken to come while its largest product runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import NamedTuple

from vdsgen.cost.rates import eight_bit_speedups
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.lab import Gpu
from vdsgen.spec.linear_precision import (
    FORMATS,
    OPERATORS,
    EightBit,
    Format,
    Terms,
    hidden_terms,
    takes,
    traffic_terms,
)
from vdsgen.spec.profile import (
    EightBitProducts,
    LayerCosts,
    LayerType,
    ModelProfile,
    PackedActivations,
    Peak,
    Polynomial,
    Product,
    Recomputation,
    SelectiveRecomputation,
)

ELEMENT_BYTES = {"half": 2, "single": 4}


class How(NamedTuple):
    """Products in 8 bits on one kind of device."""

    kind: EightBit
    emulated_in: Mapping[str, int | None]
    """By `half` and `single`: bytes of an element of the format that emulates fp8; None where the device has
    it."""


def emulated_in(kind: EightBit, dtype: Dtype, gpus: Sequence[Gpu]) -> int | None:
    """Bytes of an element of what fp8 is emulated in for a model of this dtype (model/low_precision); None
    where all of these GPUs multiply in it. int8 is computed as it is everywhere."""
    if kind == "int8" or all(kind in eight_bit_speedups(gpu, dtype) for gpu in gpus):
        return None
    on_gpus = all(gpu.memory_gib is not None for gpu in gpus)
    return 2 if dtype == "bf16" and on_gpus else 4


def with_eight_bit_linears(profile: ModelProfile, how: How) -> ModelProfile:
    """The same model with the linear layers of its blocks in 8 bits."""

    def changed(types: Mapping[str, LayerType]) -> dict[str, LayerType]:
        return {name: _layer(layer, how) if layer.is_block else layer for name, layer in types.items()}

    split = profile.tensor_parallel
    return profile.model_copy(
        update={
            "layer_types": changed(profile.layer_types),
            "tensor_parallel": None if split is None else {size: changed(own) for size, own in split.items()},
        }
    )


def is_in_8_bits(product: Product) -> bool:
    """Whether a block's product is: it runs over tokens, and its sizes are multiples of 16."""
    over_tokens = any("S" in monomial or "L" in monomial for monomial in product.rows.terms)
    return over_tokens and takes(product.columns, product.depth)


def _layer(layer: LayerType, how: How) -> LayerType:
    products = [product for product in layer.products if is_in_8_bits(product)]
    if not layer.products:
        return _by_weights(layer, how)
    if not products:
        return layer
    other = {
        key: _costs(costs, products, how, key.split("/")[0]) for key, costs in layer.other_attention.items()
    }
    marked = [
        product.model_copy(update={"precision": how.kind}) if product in products else product
        for product in layer.products
    ]
    counted = sum(product.count for product in products)
    return layer.model_copy(
        update={
            "products": tuple(marked),
            **_more_kernels(layer, how.kind, counted),
            "half": _costs(layer.half, products, how, "half"),
            "single": _costs(layer.single, products, how, "single"),
            "other_attention": other,
        }
    )


def _by_weights(layer: LayerType, how: How) -> LayerType:
    """A layer whose products were not traced by shape: its FLOPs over tokens are known, and its linear
    weights. Each is taken to run over all of a sample's tokens, for workspace; and for traffic over as many
    as the share of the FLOPs says. Layers with convolutions, whose FLOPs are not told apart, stay exact."""
    shapes = _linear_shapes(layer)
    at_all = sum(2 * n * k for n, k in shapes)
    if not at_all or any(len(shape) > 3 for shape in layer.parameter_shapes):
        return layer

    def changed(costs: LayerCosts, width: str) -> LayerCosts:
        flops = {key: value for key, value in costs.matmul_flops.terms.items() if "S" in key or "L" in key}
        rows = Polynomial(terms=dict.fromkeys(flops, 1))
        products = [Product(rows=rows, columns=n, depth=k) for n, k in shapes]
        share = {key: min(1.0, value / at_all) for key, value in flops.items()}
        eight_bit = EightBitProducts(precision=how.kind, matmul_flops=Polynomial(terms=flops))
        return _costs(costs, products, how, width, share).model_copy(update={"eight_bit": eight_bit})

    other = {key: changed(costs, key.split("/")[0]) for key, costs in layer.other_attention.items()}
    half, single = changed(layer.half, "half"), changed(layer.single, "single")
    update = {"half": half, "single": single, "other_attention": other}
    return layer.model_copy(update={**update, **_more_kernels(layer, how.kind, len(shapes))})


def _more_kernels(layer: LayerType, kind: EightBit, products: int) -> dict[str, int]:
    """The host starts the kernels that quantise, one after the other, where an exact product is one."""
    more = OPERATORS[kind] - 1
    trains = layer.half.backward_matmul_flops is None
    backward = 2 if trains and FORMATS[kind].weight_gradient else 1
    return {
        "forward_kernels": layer.forward_kernels + more * products,
        "backward_kernels": layer.backward_kernels + more * backward * products,
    }


def _linear_shapes(layer: LayerType) -> list[tuple[int, int]]:
    """(outputs, inputs) of linear weights that may be in 8 bits: adapters, which come first, are not."""
    found, trained = [], 0
    for shape in layer.parameter_shapes:
        adapter = trained < layer.trainable_parameters < layer.parameters
        trained += prod(shape)
        if len(shape) == 2 and not adapter and takes(*shape):
            found.append((shape[0], shape[1]))
    return found


class _Added(NamedTuple):
    """What products in 8 bits add to a layer."""

    forward: tuple[Polynomial, ...]
    """Bytes beside results, at each moment of each product."""
    backward: tuple[Polynomial, ...]
    forward_traffic: Polynomial
    backward_traffic: Polynomial


def _costs(
    costs: LayerCosts,
    products: list[Product],
    how: How,
    width: str,
    share: Mapping[str, float] = MappingProxyType({}),
) -> LayerCosts:
    """`share`: of the traffic in each monomial, what counts."""
    trains = costs.backward_matmul_flops is None
    added = _added(products, how, ELEMENT_BYTES[width], how.emulated_in[width], trains)
    added = added._replace(
        forward_traffic=_shared(added.forward_traffic, share),
        backward_traffic=_shared(added.backward_traffic, share),
    )
    both = (*added.forward, *added.backward)
    update: dict[str, object] = {
        "forward_transient_bytes": _raised(costs.forward_transient_bytes, added.forward),
        "backward_transient_bytes": _raised(costs.backward_transient_bytes, added.backward),
        "forward_traffic_bytes": _sum([costs.forward_traffic_bytes, added.forward_traffic]),
        "backward_traffic_bytes": _sum([costs.backward_traffic_bytes, added.backward_traffic]),
    }
    if costs.checkpointed is not None:
        update["checkpointed"] = _recomputed(costs.checkpointed, both)
    if costs.selective is not None:
        update["selective"] = _selective(costs.selective, added)
    if costs.packed is not None:
        update["packed"] = _packed(costs.packed, added)
    return costs.model_copy(update=update)


def _recomputed(costs: Recomputation, added: tuple[Polynomial, ...]) -> Recomputation:
    return costs.model_copy(update={"peak_bytes": _raised(costs.peak_bytes, added)})


def _selective(costs: SelectiveRecomputation, added: _Added) -> SelectiveRecomputation:
    """Products do not run again."""
    return costs.model_copy(
        update={
            "peak_bytes": _raised(costs.peak_bytes, added.backward),
            "forward_transient_bytes": _raised(costs.forward_transient_bytes, added.forward),
        }
    )


def _packed(costs: PackedActivations, added: _Added) -> PackedActivations:
    return costs.model_copy(update={"selective": _selective(costs.selective, added)})


def _added(
    products: Sequence[Product], how: How, element_bytes: int, emulated_in: int | None, trains: bool
) -> _Added:
    """`trains`: whether weights have gradients."""
    formats = FORMATS[how.kind]
    forward = [(_forward_shape(product), product.count) for product in products]
    backward = [
        (shape, product.count)
        for product in products
        for shape in _backward_shapes(product, how.kind, trains)
    ]

    def held(shapes: list[tuple[_Shape, int]], form: Format) -> tuple[Polynomial, ...]:
        terms = hidden_terms(form, element_bytes, emulated_in)
        return tuple(_largest([Polynomial(terms={}), *(x.bytes(own) for x, _ in shapes for own in terms)]))

    def moved(shapes: list[tuple[_Shape, int]], form: Format) -> Polynomial:
        terms = traffic_terms(form, element_bytes, emulated_in)
        return _sum([_times(shape.bytes(terms), count) for shape, count in shapes])

    return _Added(
        held(forward, formats.forward),
        held(backward, formats.gradient),
        moved(forward, formats.forward),
        moved(backward, formats.gradient),
    )


class _Shape(NamedTuple):
    """A product's sizes, one of which is the number of tokens."""

    tokens: Polynomial
    left: int
    """A token's elements in the left operand; 0 where it has no axis of tokens, and so on."""
    right: int
    result: int
    fixed: tuple[int, int, int]
    """Elements of those that have none."""

    def bytes(self, terms: Terms) -> Polynomial:
        a_token = terms.left * self.left + terms.right * self.right + terms.result * self.result
        fixed = sum(term * size for term, size in zip(terms, self.fixed, strict=True))
        return _sum([_times(self.tokens, a_token), Polynomial(terms={"1": fixed})])


def _forward_shape(product: Product) -> _Shape:
    n, k = product.columns, product.depth
    return _Shape(product.rows, k, 0, n, (0, n * k, 0))


def _backward_shapes(product: Product, kind: EightBit, trains: bool) -> Iterator[_Shape]:
    """By the input, and where the weight trains by it: outputs x tokens times tokens x inputs."""
    n, k = product.columns, product.depth
    yield _Shape(product.rows, n, 0, k, (0, n * k, 0))
    if trains and FORMATS[kind].weight_gradient:
        yield _Shape(product.rows, n, k, 0, (0, 0, n * k))


def _shared(polynomial: Polynomial, share: Mapping[str, float]) -> Polynomial:
    terms = {key: round(value * share.get(key, 1.0)) for key, value in polynomial.terms.items()}
    return Polynomial(terms=terms)


def _times(polynomial: Polynomial, factor: int) -> Polynomial:
    return Polynomial(terms={monomial: factor * value for monomial, value in polynomial.terms.items()})


def _sum(polynomials: Iterable[Polynomial]) -> Polynomial:
    terms: dict[str, int] = {}
    for polynomial in polynomials:
        for monomial, value in polynomial.terms.items():
            terms[monomial] = terms.get(monomial, 0) + value
    return Polynomial(terms={monomial: terms[monomial] for monomial in sorted(terms) if terms[monomial]})


def _raised(peak: Peak, added: Iterable[Polynomial]) -> Peak:
    """A peak beside which the largest of `added` is held."""
    sums = [_sum([candidate, more]) for candidate in peak.candidates for more in added]
    return Peak(candidates=tuple(_largest(sums)))


def _largest(polynomials: Iterable[Polynomial]) -> list[Polynomial]:
    """Those that no other exceeds at every geometry: in each coefficient."""
    kept: list[Polynomial] = []
    for one in polynomials:
        if any(_exceeds(other, one) for other in kept):
            continue
        kept = [other for other in kept if not _exceeds(one, other)] + [one]
    return kept


def _exceeds(one: Polynomial, other: Polynomial) -> bool:
    names = one.terms.keys() | other.terms.keys()
    return all(one.terms.get(name, 0) >= other.terms.get(name, 0) for name in names)
