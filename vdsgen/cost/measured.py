"""Rates that a calibration measured, interpolated between the shapes it measured them at."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.dtypes import Dtype

TERA = 1e12
GB = 1e9

Curve = tuple[tuple[float, float], ...]
"""(log of the size, rate), sizes rising."""


class MeasuredRates(NamedTuple):
    """What was measured in one dtype; empty where nothing was."""

    matrix: tuple[tuple[tuple[float, float, float], float], ...] = ()
    """(log rows, log columns, log depth) and FLOP/s."""
    attention: tuple[tuple[int, Curve, Curve], ...] = ()
    """Head size, and forward and backward FLOP/s by length."""
    element_wise: tuple[Curve, Curve] | None = None
    """Forward and backward bytes a second by tokens."""

    @classmethod
    def of(cls, calibration: Calibration, dtype: Dtype) -> MeasuredRates:
        """The calibration's figures for this dtype."""
        attention = []
        rates = [rate for rate in calibration.attention_rates if rate.dtype == dtype]
        for head_size in sorted({rate.head_size for rate in rates}):
            own = [rate for rate in rates if rate.head_size == head_size]
            attention.append(
                (
                    head_size,
                    _curve((rate.length, middle(rate.forward_tflops) * TERA) for rate in own),
                    _curve((rate.length, middle(rate.backward_tflops) * TERA) for rate in own),
                )
            )
        layers = [rate for rate in calibration.layer_rates if rate.dtype == dtype]
        element_wise = None
        if layers:
            element_wise = (
                _curve((rate.tokens, middle(rate.forward_gb_per_second) * GB) for rate in layers),
                _curve((rate.tokens, middle(rate.backward_gb_per_second) * GB) for rate in layers),
            )
        return cls(
            matrix=tuple(
                (_logs(rate.rows, rate.columns, rate.depth), middle(rate.tflops) * TERA)
                for rate in calibration.matrix_rates
                if rate.dtype == dtype
            ),
            attention=tuple(attention),
            element_wise=element_wise,
        )

    def matrix_flops_per_second(self, rows: int, columns: int, depth: int) -> float | None:
        """The rates of measured shapes, weighted by their closeness: the inverse square of the distance
        between logarithms of the sizes. A shape that was measured has its own rate."""
        if not self.matrix:
            return None
        here = _logs(rows, columns, depth)
        weights, total = 0.0, 0.0
        for shape, rate in self.matrix:
            distance = sum((a - b) ** 2 for a, b in zip(here, shape, strict=True))
            if distance < 1e-12:
                return rate
            weights += 1 / distance
            total += rate / distance
        return total / weights

    def attention_flops_per_second(self, length: float, head_size: int) -> tuple[float, float] | None:
        """(forward, backward) at the nearest head size that was measured."""
        if not self.attention or length <= 0:
            return None
        _, forward, backward = min(self.attention, key=lambda own: abs(math.log(own[0] / head_size)))
        return _at(forward, length), _at(backward, length)

    def element_wise_bytes_per_second(self, tokens: int) -> tuple[float, float] | None:
        """(forward, backward) of a layer of so many tokens."""
        if self.element_wise is None:
            return None
        return _at(self.element_wise[0], tokens), _at(self.element_wise[1], tokens)


def _logs(*sizes: int) -> tuple[float, float, float]:
    rows, columns, depth = (math.log(size) for size in sizes)
    return rows, columns, depth


def _curve(points: Iterable[tuple[float, float]]) -> Curve:
    return tuple(sorted((math.log(size), rate) for size, rate in points))


def _at(curve: Curve, size: float) -> float:
    """Straight lines over the logarithm of the size; beyond the ends, the end's rate."""
    position = math.log(size)
    index = bisect_left(curve, (position,))
    if index == 0:
        return curve[0][1]
    if index == len(curve):
        return curve[-1][1]
    (left, low), (right, high) = curve[index - 1], curve[index]
    return low + (high - low) * (position - left) / (right - left)
