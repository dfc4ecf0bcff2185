"""The report's colours: enough contrast on both pages, told apart by people who see fewer of them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import pytest

from vdsgen.cost.timeline import COMPONENTS as HELD
from vdsgen.report.palette import COMPONENTS, PAGE, SERIES, WORK, Theme

THEMES = get_args(Theme)
DEFICIENCIES = {
    # Machado, Oliveira and Fernandes 2009 (doi 10.1109/TVCG.2009.113), severity 1.0, on linear RGB.
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
}


def linear(colour: str) -> tuple[float, float, float]:
    """Linear RGB of a hexadecimal sRGB colour (IEC 61966-2-1)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return red, green, blue


def luminance(rgb: tuple[float, float, float]) -> float:
    return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio"."""
    lighter, darker = sorted((luminance(linear(one)), luminance(linear(other))), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def lab(rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    """CIE L*a*b* under D65."""
    red, green, blue = (min(1.0, max(0.0, part)) for part in rgb)
    xyz = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883,
    )
    x, y, z = (value ** (1 / 3) if value > 0.008856 else 7.787 * value + 16 / 116 for value in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def difference(one: str, other: str, deficiency: str) -> float:
    """How far two colours are apart to such eyes: CIE 1976, 2.3 is just seen."""
    matrix = DEFICIENCIES[deficiency]
    seen = []
    for colour in (one, other):
        rgb = linear(colour)
        r, g, b = (sum(row[k] * rgb[k] for k in range(3)) for row in matrix)
        seen.append(lab((r, g, b)))
    return math.dist(*seen)


@pytest.mark.parametrize("theme", THEMES)
def test_text_has_a_contrast_of_4_5_and_what_is_drawn_one_of_3(theme: str) -> None:
    page, card = (getattr(PAGE[name], theme) for name in ("page", "card"))
    for name in ("text", "muted", "accent", "good", "bad", "capacity"):
        colour = getattr(PAGE[name], theme)
        assert contrast(colour, page) >= 4.5, name
        assert contrast(colour, card) >= 4.5, name
    drawn = {**COMPONENTS, **WORK, **{str(place): colour for place, colour in enumerate(SERIES)}}
    drawn["idle_edge"] = PAGE["idle_edge"]
    for name, colours in drawn.items():
        assert contrast(getattr(colours, theme), page) >= 3, name
    assert contrast(getattr(PAGE["text"], theme), getattr(PAGE["selected"], theme)) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_neighbours_are_told_apart_with_fewer_colours(theme: str, deficiency: str) -> None:
    names = ("reserve", *HELD)
    stack = [getattr(COMPONENTS[name], theme) for name in names]
    for name, (one, other) in zip(names, pairwise(stack), strict=False):
        assert difference(one, other, deficiency) > 8, name
    forward, backward, again = (getattr(WORK[name], theme) for name in ("forward", "backward", "recompute"))
    assert difference(forward, again, deficiency) > 20
    assert difference(again, backward, deficiency) > 10
    assert difference(backward, forward, deficiency) > 10


def test_every_component_has_a_colour() -> None:
    assert set(COMPONENTS) == {"reserve", *HELD}
