"""From samples of seconds to the figures of a calibration, each with its quartiles."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from vdsgen.profile.calibrate_engine_figures import engine_figures
from vdsgen.profile.calibrate_samples import Samples
from vdsgen.profile.calibrate_shapes import (
    BATCHES,
    CHECKPOINT,
    CHECKPOINT_BYTES,
    CLIP,
    HOST_BYTES,
    LARGE_BYTES,
    ON_GPU,
    ON_PROCESSOR,
    SMALL_BYTES,
    Sizes,
    block_type,
)
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.calibration import (
    AttentionRate,
    Calibration,
    CollectiveRate,
    LayerRate,
    MatrixRate,
    PositiveSpread,
)
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.profile import LayerType

TERA, GIGA, MICRO = 1e12, 1e9, 1e-6
ADAMW_BYTES = 28
"""A parameter: gradient, parameter and two moments in fp32 are read, the last three written."""
LEAST_SHARE = 0.02
"""Of a block's time that element-wise work takes at least, however noisy the other parts are."""


def calibration_of(samples: Sequence[Samples], *, ranks: int, busy_ranks: int, on_gpu: bool) -> Calibration:
    """Figures from the samples of all ranks."""
    seconds = _Seconds(samples)
    sizes = ON_GPU if on_gpu else ON_PROCESSOR
    rows, columns, depth = sizes.large_product
    figures: dict[str, object] = {"busy_ranks": busy_ranks}
    dtypes: tuple[Dtype, ...] = ("fp32", "fp16", "bf16")
    for dtype in dtypes:
        if f"large {dtype}" in seconds:
            rate = seconds.rate(f"large {dtype}", 2 * rows * columns * depth / TERA)
            figures[f"{dtype}_matmul_tflops"] = rate
    kernel = _kernel_seconds(seconds)
    figures |= {
        "matrix_rates": tuple(_matrix_rates(seconds)),
        "attention_rates": tuple(_attention_rates(seconds)),
        "layer_rates": tuple(_layer_rates(seconds, sizes, 0.0 if on_gpu else statistics.median(kernel))),
        "kernel_microseconds": _spread([value / MICRO for value in kernel]),
        "memory_bandwidth_gb_per_second": seconds.rate("stream", 12 * sizes.stream_elements / GIGA),
        "optimizer_bandwidth_gb_per_second": seconds.rate(
            "adamw", ADAMW_BYTES * sizes.adamw_parameters / GIGA
        ),
    }
    if not on_gpu:
        figures["alone_speedup"] = _alone_speedup(seconds)
        if "crowded both" in seconds:
            figures["crowded_slowdown"] = _crowded_slowdown(seconds)
    figures |= engine_figures(seconds.all, statistics.median(kernel))
    if ranks > 1:
        figures |= _link_figures(seconds, ranks)
    if on_gpu:
        figures["host_link_bandwidth_gb_per_second"] = seconds.rate("host up", HOST_BYTES / GIGA)
        figures["host_memory_bandwidth_gb_per_second"] = seconds.rate("host memory", 2 * HOST_BYTES / GIGA)
    if CHECKPOINT in seconds:
        rate = seconds.rate(CHECKPOINT, ranks * CHECKPOINT_BYTES / GIGA)
        figures["checkpoint_write_gb_per_second"] = rate
    return Calibration.model_validate(figures)


class _Seconds:
    """The samples of all ranks together."""

    def __init__(self, samples: Sequence[Samples]) -> None:
        self.all: Samples = {}
        for own in samples:
            for name, values in own.items():
                self.all.setdefault(name, []).extend(values)

    def __contains__(self, name: str) -> bool:
        return name in self.all

    def names(self, first: str) -> Iterable[str]:
        """Names whose first word is `first`."""
        return [name for name in self.all if name.split()[0] == first]

    def of(self, name: str) -> list[float]:
        return self.all[name]

    def median(self, name: str) -> float:
        return statistics.median(self.all[name])

    def rate(self, name: str, work: float) -> PositiveSpread:
        """Work over time."""
        return _spread([work / value for value in self.all[name]])


def _spread(values: Sequence[float]) -> PositiveSpread:
    """Median and quartiles, four digits each."""
    if len(values) > 1:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    else:
        low = median = high = values[0]
    low, median, high = (float(f"{value:.4g}") for value in (low, median, high))
    return PositiveSpread(median=median, low=low, high=high)


def _kernel_seconds(seconds: _Seconds) -> list[float]:
    """A block of so few tokens that dispatching is all there is: per operator."""
    layer = block_type()
    operators = layer.forward_kernels + layer.backward_kernels
    return [value / operators for value in seconds.of("speck both")]


def _matrix_rates(seconds: _Seconds) -> list[MatrixRate]:
    found = []
    for name in seconds.names("product"):
        _, dtype, *shape = name.split()
        rows, columns, depth = map(int, shape)
        rate = seconds.rate(name, 2 * rows * columns * depth / TERA)
        found.append(
            MatrixRate.model_validate(
                {"dtype": dtype, "rows": rows, "columns": columns, "depth": depth, "tflops": rate}
            )
        )
    return found


def _attention_rates(seconds: _Seconds) -> list[AttentionRate]:
    found = []
    for name in seconds.names("attention"):
        if not name.endswith("forward"):
            continue
        _, dtype, *shape, _ = name.split()
        sequences, length, head_size = map(int, shape)
        flops = 4 * sequences * length**2 * head_size
        backward = name.replace("forward", "backward")
        found.append(
            AttentionRate.model_validate(
                {
                    "dtype": dtype,
                    "length": length,
                    "head_size": head_size,
                    "forward_tflops": seconds.rate(name, flops / TERA),
                    "backward_tflops": seconds.rate(backward, 2.5 * flops / TERA),
                }
            )
        )
    return found


def _layer_rates(seconds: _Seconds, sizes: Sizes, kernel_seconds: float) -> list[LayerRate]:
    """What a block takes beside its products, attentions and dispatch, over the bytes that it moves.

    On a GPU dispatch runs ahead of the work, and is not taken off.
    """
    layer = block_type(sizes.model)
    found = []
    for name in seconds.names("block"):
        if not name.endswith("forward"):
            continue
        _, dtype, tokens, _ = name.split()
        batch = int(tokens) // (sizes.clip.frames * sizes.clip.patches)
        assert batch in sizes.batches
        forward, backward = _known_parts(seconds, layer, dtype, batch, sizes.clip)
        forward += layer.forward_kernels * kernel_seconds
        backward += layer.backward_kernels * kernel_seconds
        costs = layer.single if dtype == "fp32" else layer.half
        ahead = seconds.of(name)
        behind = [both - seconds.median(name) for both in seconds.of(f"block {dtype} {tokens} both")]
        found.append(
            LayerRate.model_validate(
                {
                    "dtype": dtype,
                    "tokens": int(tokens),
                    "forward_gb_per_second": _rest_rate(
                        ahead, forward, costs.forward_traffic_bytes.at(batch, sizes.clip)
                    ),
                    "backward_gb_per_second": _rest_rate(
                        behind, backward, costs.backward_traffic_bytes.at(batch, sizes.clip)
                    ),
                    "forward_block_microseconds": _spread([value / MICRO for value in ahead]),
                    "backward_block_microseconds": _spread([value / MICRO for value in behind]),
                }
            )
        )
    return found


def _known_parts(
    seconds: _Seconds, layer: LayerType, dtype: str, batch: int, clip: Geometry
) -> tuple[float, float]:
    """Seconds of a block's products and attentions, forward and backward, as measured by themselves."""
    forward = backward = 0.0
    for product in layer.products:
        m, n, k = product.rows.at(batch, clip), product.columns, product.depth
        forward += product.count * seconds.median(f"product {dtype} {m} {n} {k}")
        backward += product.count * seconds.median(f"product {dtype} {m} {k} {n}")
        backward += product.count * seconds.median(f"product {dtype} {n} {k} {m}")
    for name in seconds.names("attention"):
        _, own, sequences, length, head_size, direction = name.split()
        for attention in layer.attentions:
            scores = attention.flops.at(batch, clip) // (4 * attention.head_size)
            queries = attention.heads * attention.query_rows.at(batch, clip)
            if own != dtype or (scores // queries, attention.head_size) != (int(length), int(head_size)):
                continue
            # Measured with one batch's sequences.
            share = attention.count * queries / (int(sequences) * int(length))
            if direction == "forward":
                forward += share * seconds.median(name)
            else:
                backward += share * seconds.median(name)
    return forward, backward


def _rest_rate(block_seconds: Sequence[float], known_seconds: float, moved_bytes: int) -> PositiveSpread:
    rests = [max(value - known_seconds, LEAST_SHARE * max(value, known_seconds)) for value in block_seconds]
    return _spread([moved_bytes / rest / GIGA for rest in rests])


def _alone_speedup(seconds: _Seconds) -> PositiveSpread:
    return _spread([_block_seconds(seconds) / value for value in seconds.of("alone both")])


def _crowded_slowdown(seconds: _Seconds) -> PositiveSpread:
    return _spread([value / _block_seconds(seconds) for value in seconds.of("crowded both")])


def _block_seconds(seconds: _Seconds) -> float:
    """Of ranks with a core each."""
    return seconds.median(f"block fp32 {BATCHES[0] * CLIP.frames * CLIP.patches} both")


def _link_figures(seconds: _Seconds, ranks: int) -> dict[str, object]:
    """Bandwidths from what a large message takes longer than a small one."""
    small, large = seconds.median("send small"), seconds.of("send large")
    figures: dict[str, object] = {
        "link_bandwidth_gb_per_second": _extra_rate(large, small, LARGE_BYTES - SMALL_BYTES),
        "link_latency_microseconds": _spread([value / MICRO for value in seconds.of("send small")]),
    }
    for name, passes in (("all_reduce", 2), ("all_gather", 1), ("reduce_scatter", 1)):
        figures[name] = CollectiveRate(
            ranks=ranks,
            bandwidth_gb_per_second=_extra_rate(
                seconds.of(f"{name} large"),
                seconds.median(f"{name} small"),
                passes * (ranks - 1) / ranks * (LARGE_BYTES - SMALL_BYTES),
            ),
            latency_microseconds=_spread([value / MICRO for value in seconds.of(f"{name} small")]),
        )
    return figures


def _extra_rate(large: Sequence[float], small_seconds: float, extra_bytes: float) -> PositiveSpread:
    return _spread([extra_bytes / max(value - small_seconds, 1e-9) / GIGA for value in large])
