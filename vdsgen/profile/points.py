"""Where a model is traced, and the monomials that its costs are sums of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vdsgen.spec.architecture import Geometry, Vdt

Size = TypeVar("Size", int, tuple[int, int])


@dataclass(frozen=True, slots=True)
class Point:
    """A micro-batch size and a geometry; with adapters, their rank too."""

    batch: int
    geometry: Geometry
    rank: int = 0


def monomials_of(model: Vdt) -> tuple[str, ...]:
    """What a layer's costs can be made of, in the order of preference where two are proportional.

    Weights are constants, tables of positions have T or S alone, activations have B. Attention multiplies
    a length by itself or by another, and its kernel rounds lengths up (see Polynomial).
    """
    common = ("1", "T", "S", "B", "BS", "BTS", "BTSS", "BTTS")
    learned = ("BT",) if model.position == "learned" else ()
    rounded = ("BtS", "BTs")
    text = ("BL", "BTSL", "Bn") if model.condition == "text" else ()
    return (*common, *learned, *rounded, *text)


def candidate_points(model: Vdt) -> list[Point]:
    """Small geometries within the model's limits, in a fixed order that mixes the variables.

    No variable is 1, where layouts degenerate (a transposed tensor with one row is contiguous), and
    there are more frames than the temporal kernel reaches, so that the same operators run everywhere.
    """
    reach = model.temporal_kernel_size // 2
    frames = [reach + extra for extra in (2, 5, 130, 11, 260)]
    grids = [(3, 5), (11, 13), (4, 7), (17, 16), (2, 9)]
    if model.position == "learned":
        frames = _within(frames, range(model.max_frames - 1, 1, -1), model.max_frames) or [model.max_frames]
        narrow = ((2, columns) for columns in range((model.max_patches - 1) // 2, 1, -1))
        grids = _within(grids, narrow, model.max_patches) or [(1, model.max_patches)]
    texts = [3, 10, 7] if model.condition == "text" else [0]
    points = []
    for index in range(5 * 5 * 4 * 3):
        # Strides coprime to the lists' lengths walk through all combinations.
        rows, columns = grids[(index * 2 + index // 5) % len(grids)]
        points.append(
            Point(
                batch=2 + (index + index // 25) % 4,
                geometry=Geometry(
                    frames=frames[index % len(frames)],
                    patches=rows * columns,
                    text_tokens=texts[(index + index // 3) % len(texts)],
                    latent_height=rows * model.patch_size,
                    latent_width=columns * model.patch_size,
                ),
            )
        )
    return list(dict.fromkeys(points))


def _within(preferred: Sequence[Size], others: Iterable[Size], limit: int) -> list[Size]:
    """The preferred sizes below a model's limit, filled up to what tells squares from lengths.

    Below it, because a table of positions that is used whole needs no slice: other operators run.
    """
    allowed = [size for size in preferred if (size if isinstance(size, int) else math.prod(size)) < limit]
    for size in others:
        if len(allowed) >= len(preferred):
            break
        if size not in allowed:
            allowed.append(size)
    return allowed
