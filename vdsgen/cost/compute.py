"""Seconds that a GPU computes: a roofline for each matrix product, attention by its lengths, everything else
at memory bandwidth, and never less than launching the kernels takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.averages import UPDATE_BYTES
from vdsgen.cost.rates import BACKWARD_ATTENTION_FACTOR, Rates
from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.linear_precision import FORMATS
from vdsgen.spec.profile import LayerCosts, LayerType, ModelProfile, SelectiveRecomputation

BACKWARD_MATMUL_FACTOR = 2.0
"""A matrix product's backward is two products of the same size: by its input and by its weight."""
ADAMW_BYTES = 28
"""A fused AdamW step reads gradient, parameter and two moments in fp32 and writes the last three."""
INT8_STEP_BYTES = 160
"""Of memory traffic an element of AdamW with moments in int8, operator by operator (model/adamw_8bit.py):
codes to fp32 (1 + 4 read, 4 + 4 written, and a product 8 + 4) twice, the step (48), and back again
(magnitudes 8, quotient 8, code 8 + 1) twice, rounded up."""


class LayerTimes(NamedTuple):
    """One micro-batch through one layer."""

    forward_seconds: float
    backward_seconds: float
    """Without recomputation."""
    model_flops: float
    """Forward and backward, recomputation not counted."""
    selective_seconds: float = 0.0
    """Recomputing all but the products."""
    packing_seconds: float = 0.0
    """Packing the hidden state that the layer hands on, and unpacking it."""
    packed_selective_seconds: float = 0.0
    """Packing the products, and recomputing all else from them."""

    def slowed(self, factor: float) -> LayerTimes:
        """The same work in `factor` times the time."""
        return self._replace(
            forward_seconds=factor * self.forward_seconds,
            backward_seconds=factor * self.backward_seconds,
            selective_seconds=factor * self.selective_seconds,
            packing_seconds=factor * self.packing_seconds,
            packed_selective_seconds=factor * self.packed_selective_seconds,
        )


def slowest_times(times: Sequence[LayerTimes]) -> LayerTimes:
    """One layer on GPUs of several kinds that wait for each other."""
    return LayerTimes(
        max(one.forward_seconds for one in times),
        max(one.backward_seconds for one in times),
        times[0].model_flops,
        max(one.selective_seconds for one in times),
        max(one.packing_seconds for one in times),
        max(one.packed_selective_seconds for one in times),
    )


class _Seconds(NamedTuple):
    forward: float
    backward: float

    def plus(self, forward: float, backward: float) -> _Seconds:
        return _Seconds(self.forward + forward, self.backward + backward)


def layer_times(
    costs: LayerCosts,
    micro_batch_size: int,
    geometry: Geometry,
    rates: Rates,
    layer: LayerType | None = None,
    engine_seconds: float = 0.0,
) -> LayerTimes:
    """Sum of matrix products, attention and element-wise work, each at its own rate.

    They add up, rather than overlap, since kernels run one after another on one stream. `layer` gives the
    shapes and the number of kernels; without it, products are large and kernels cost nothing to launch.
    `engine_seconds` are the host's besides, in backward, while a GPU computes.
    """
    element_bytes = 2 if layer is None or costs is layer.half else 4
    spent = _product_seconds(costs, micro_batch_size, geometry, rates, layer, element_bytes)
    spent = spent.plus(*_attention_seconds(costs, micro_batch_size, geometry, rates, layer))
    forward_rate, backward_rate, kept = _element_wise(micro_batch_size, geometry, rates, layer)
    spent = spent.plus(
        costs.forward_traffic_bytes.at(micro_batch_size, geometry) / forward_rate,
        costs.backward_traffic_bytes.at(micro_batch_size, geometry) / backward_rate,
    )
    spent = _Seconds(spent.forward / kept, spent.backward / kept)
    if layer is not None:
        spent = _dispatched(spent, layer, rates, engine_seconds)
    matmul = costs.matmul_flops.at(micro_batch_size, geometry)
    attention = costs.attention_flops.at(micro_batch_size, geometry)
    at = (micro_batch_size, geometry)
    packing = packed_selective = 0.0
    if (packed := costs.packed) is not None:
        packing = packed.packing_traffic_bytes.at(*at) + packed.unpacking_traffic_bytes.at(*at)
        packing /= forward_rate * kept
        packed_selective = packed.selective_packing_traffic_bytes.at(*at) / forward_rate / kept
        packed_selective += _selective_seconds(packed.selective, *at, rates, layer)
    return LayerTimes(
        forward_seconds=spent.forward,
        backward_seconds=spent.backward,
        model_flops=(1 + BACKWARD_MATMUL_FACTOR) * matmul + (1 + BACKWARD_ATTENTION_FACTOR) * attention,
        selective_seconds=_selective_seconds(costs.selective, *at, rates, layer),
        packing_seconds=packing,
        packed_selective_seconds=packed_selective,
    )


def _element_wise(
    micro_batch_size: int, geometry: Geometry, rates: Rates, layer: LayerType | None
) -> tuple[float, float, float]:
    """(forward bytes a second, backward, the share of all rates that training keeps) of a layer.

    What a GPU was measured to do for a block of the bundled family is that family's: half of it is a kernel
    that normalises each head by itself. Other models' layers run at memory bandwidth (docs/gpu.md).
    """
    tokens = micro_batch_size * geometry.frames * geometry.patches
    if rates.dispatch_adds_up or (layer is not None and layer.products):
        measured = rates.measured.element_wise is not None
        kept = 1.0 if measured else rates.training_fraction
        return (*rates.element_wise_bytes_per_second(tokens), kept)
    return rates.bytes_per_second, rates.bytes_per_second, rates.training_fraction


def _selective_seconds(
    kept: SelectiveRecomputation | None,
    micro_batch_size: int,
    geometry: Geometry,
    rates: Rates,
    layer: LayerType | None,
) -> float:
    """Mostly element-wise work; attention runs again where its kernel puts out no single product."""
    if kept is None:
        return 0.0
    at = (micro_batch_size, geometry)
    forward_rate, _, training = _element_wise(micro_batch_size, geometry, rates, layer)
    seconds = kept.recomputed_traffic_bytes.at(*at) / forward_rate
    seconds += kept.recomputed_matmul_flops.at(*at) / rates.matmul_flops_per_second
    seconds += kept.recomputed_attention_flops.at(*at) / rates.plain_attention_flops_per_second()
    seconds /= training
    launched = kept.recomputed_kernels * rates.kernel_seconds if layer is not None else 0.0
    return seconds + launched if rates.dispatch_adds_up else max(seconds, launched)


def _dispatched(spent: _Seconds, layer: LayerType, rates: Rates, engine_seconds: float) -> _Seconds:
    forward = layer.forward_kernels * rates.kernel_seconds
    backward = layer.backward_kernels * rates.kernel_seconds + engine_seconds
    if rates.dispatch_adds_up:
        return spent.plus(forward, backward)
    return _Seconds(max(spent.forward, forward), max(spent.backward, backward))


def _product_seconds(
    costs: LayerCosts,
    micro_batch_size: int,
    geometry: Geometry,
    rates: Rates,
    layer: LayerType | None,
    element_bytes: int,
) -> _Seconds:
    """Backward's two products have the same three sizes, each in another role."""
    rest = costs.matmul_flops.at(micro_batch_size, geometry)
    spent = _Seconds(0.0, 0.0)
    for product in layer.products if layer is not None else ():
        rows = product.rows.at(micro_batch_size, geometry)
        if rows == 0:
            continue
        n, k, count = product.columns, product.depth, product.count
        rest -= count * 2 * rows * n * k
        precision = product.precision
        in_8_bits = precision != "exact" and FORMATS[precision].weight_gradient
        by_input = rates.product_seconds(rows, k, n, element_bytes, precision)
        by_weight = rates.product_seconds(n, k, rows, element_bytes, precision if in_8_bits else "exact")
        spent = spent.plus(
            count * rates.product_seconds(rows, n, k, element_bytes, precision),
            count * (by_input + by_weight),
        )
    other = max(0, rest) / rates.matmul_flops_per_second
    spent = _spared(spent, costs, micro_batch_size, geometry, rates)
    if costs.backward_matmul_flops is None:
        return spent.plus(other, BACKWARD_MATMUL_FACTOR * other)
    # Frozen weights need one product, by the input alone.
    matmul = costs.matmul_flops.at(micro_batch_size, geometry)
    backward = costs.backward_matmul_flops.at(micro_batch_size, geometry)
    counted = BACKWARD_MATMUL_FACTOR * (matmul - max(0, rest))
    return spent.plus(other, max(0.0, backward - counted) / rates.matmul_flops_per_second)


def _spared(
    spent: _Seconds, costs: LayerCosts, micro_batch_size: int, geometry: Geometry, rates: Rates
) -> _Seconds:
    """Without what 8 bits spare products that are not told apart by shape."""
    if costs.eight_bit is None:
        return spent
    precision = costs.eight_bit.precision
    flops = costs.eight_bit.matmul_flops.at(micro_batch_size, geometry)
    share = 1 - 1 / rates.eight_bit_speedups.get(precision, 1.0)
    spared = share * flops / rates.matmul_flops_per_second
    trains = costs.backward_matmul_flops is None
    backward = 2 if trains and FORMATS[precision].weight_gradient else 1
    return spent.plus(-spared, -backward * spared)


def _attention_seconds(
    costs: LayerCosts, micro_batch_size: int, geometry: Geometry, rates: Rates, layer: LayerType | None
) -> _Seconds:
    rest = costs.attention_flops.at(micro_batch_size, geometry)
    spent = _Seconds(0.0, 0.0)
    for attention in layer.attentions if layer is not None else ():
        flops = attention.flops.at(micro_batch_size, geometry)
        if flops == 0:
            continue
        rest -= attention.count * flops
        scores = flops / (4 * attention.head_size)
        queries = attention.heads * attention.query_rows.at(micro_batch_size, geometry)
        keys = attention.heads * attention.key_rows.at(micro_batch_size, geometry)
        forward, backward = rates.attention_seconds(
            flops, scores / keys, scores / queries, queries * keys / scores, attention.head_size
        )
        spent = spent.plus(attention.count * forward, attention.count * backward)
    other = max(0, rest) / rates.plain_attention_flops_per_second()
    return spent.plus(other, BACKWARD_ATTENTION_FACTOR * other)


def costs_of(profile: ModelProfile, layer_type: str, dtype: Dtype) -> LayerCosts:
    """A layer type's costs at the element width of this dtype."""
    layer = profile.layer_types[layer_type]
    return layer.half if BYTES_PER_ELEMENT[dtype] == 2 else layer.single


def accumulation_seconds(trainable_parameters: int, settings: Settings, rates: Rates) -> float:
    """Adding one micro-batch's gradients to those of the step: read both, write the sum.

    Nothing where a step has one micro-batch in the model's own dtype: autograd then keeps the gradient.
    """
    accumulated = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    if settings.gradient_accumulation_steps == 1 and accumulated == settings.element_bytes:
        return 0.0
    return trainable_parameters * (settings.element_bytes + 2 * accumulated) / rates.bytes_per_second


def optimizer_seconds(updated_parameters: int, settings: Settings, rates: Rates) -> float:
    """One AdamW step over the parameters that this rank updates, bound by memory bandwidth.

    Bytes a parameter: gradient norm (read the accumulated gradient), its cast to fp32 where it is not
    (read, write 4), clipping (read 4, write 4), fused AdamW (read gradient, parameter and two moments,
    write the last three: 28), and the copy to half precision (read 4, write 2). An average of the weights on
    the device takes UPDATE_BYTES more.
    """
    accumulated = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    traffic: float = accumulated + 8
    if accumulated != 4:
        traffic += accumulated + 4
    if settings.element_bytes != 4:
        traffic += 4 + settings.element_bytes
    if settings.ema == "accelerator":
        traffic += UPDATE_BYTES / settings.ema_every_steps
    if settings.int8_moments:
        return updated_parameters * (traffic + INT8_STEP_BYTES) / rates.bytes_per_second
    adamw = ADAMW_BYTES / (rates.adamw_bytes_per_second or rates.bytes_per_second)
    return updated_parameters * (traffic / rates.bytes_per_second + adamw)
