"""Where models of other libraries are traced: small geometries that tell the monomials apart."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.profile.points import Point
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.pretrained import PretrainedModel

_FRAMES = (2, 5, 3, 11, 7)
_TEXTS = (3, 10, 7, 150)


def family_points(
    entry: PretrainedModel,
    grids: Sequence[tuple[int, int]],
    batches: Sequence[int],
    ranks: Sequence[int] = (0,),
) -> list[Point]:
    """In a fixed order that mixes the variables; no other variable is 1, where layouts degenerate."""
    texts = (entry.text_tokens,) if entry.only_full_text else _TEXTS
    points = []
    for index in range(300):
        # Strides coprime to the lists' lengths walk through all combinations.
        rows, columns = grids[(index * 2 + index // 5) % len(grids)]
        points.append(
            Point(
                batch=batches[(index + index // 25) % len(batches)],
                geometry=Geometry(
                    frames=_FRAMES[index % len(_FRAMES)],
                    patches=rows * columns,
                    text_tokens=texts[(index + index // 4) % len(texts)],
                    latent_height=rows * entry.spatial_patch,
                    latent_width=columns * entry.spatial_patch,
                ),
                rank=ranks[(index + index // 3) % len(ranks)],
            )
        )
    return list(dict.fromkeys(points))


def adapter_monomials(monomials: Sequence[str]) -> tuple[str, ...]:
    """What adapters add: their weights, and activations of their rank."""
    return ("R", *(f"{m}R" for m in monomials if m in ("B", "BT", "BS", "BTS", "BL", "BTL")))
