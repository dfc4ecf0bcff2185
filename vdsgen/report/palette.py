"""The report's colours, for light and dark pages: one place, checked by tests.

Hues are those of Okabe and Ito (2008), darkened or lightened until each has a
contrast of 3 against its page (WCAG 2.2, 1.4.11). Charts never tell by colour alone: areas and bars have
patterns and edges, lines have dashes, and everything has a name and a number.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Theme = Literal["light", "dark"]


class Colour(NamedTuple):
    """One thing's colour on either page."""

    light: str
    dark: str


PAGE = {
    "page": Colour("#ffffff", "#0f1318"),
    "card": Colour("#f6f8fa", "#171d25"),
    "line": Colour("#d5dae1", "#323b47"),
    "text": Colour("#1b2027", "#e8ecf1"),
    "muted": Colour("#56606d", "#a3aebb"),
    "accent": Colour("#005a9e", "#6cc0f5"),
    "good": Colour("#006b4f", "#43cf9f"),
    "bad": Colour("#b03a00", "#ff9d66"),
    "capacity": Colour("#b3261e", "#ff8f87"),
    "idle": Colour("#e7eaee", "#252d37"),
    "idle_edge": Colour("#7d8794", "#8390a0"),
    "selected": Colour("#e3f0fb", "#1b3247"),
}

COMPONENTS = {
    "reserve": Colour("#7f8894", "#7c8896"),
    "parameters": Colour("#0072b2", "#4aa3e0"),
    "gradients": Colour("#a67a00", "#f0c04a"),
    "optimizer": Colour("#b84300", "#ff8a3d"),
    "activations": Colour("#008a66", "#2fc79a"),
    "recomputation": Colour("#5c8a00", "#a8d94f"),
    "temporaries": Colour("#3d93c9", "#8fd0ff"),
    "pipeline_buffers": Colour("#6e4b3a", "#c49a82"),
    "communication": Colour("#b8518c", "#f09ac8"),
    "workspace": Colour("#6a49b8", "#b29bff"),
}
"""Of memory, from the bottom of a stack to its top."""

WORK = {
    "forward": Colour("#0072b2", "#4aa3e0"),
    "backward": Colour("#008a66", "#2fc79a"),
    "recompute": Colour("#a67a00", "#f0c04a"),
    "transfer": Colour("#b8518c", "#f09ac8"),
    "exchange": Colour("#b84300", "#ff8a3d"),
    "optimizer": Colour("#6a49b8", "#b29bff"),
    "other": Colour("#7f8894", "#7c8896"),
}
"""What a stage does: exchange is gradients reduced and parameters gathered among data ranks."""

SERIES = (
    Colour("#0072b2", "#4aa3e0"),
    Colour("#b84300", "#ff8a3d"),
    Colour("#008a66", "#2fc79a"),
    Colour("#b8518c", "#f09ac8"),
    Colour("#a67a00", "#f0c04a"),
    Colour("#6a49b8", "#b29bff"),
    Colour("#6e4b3a", "#c49a82"),
    Colour("#3d93c9", "#8fd0ff"),
)
"""Curves and bars in their order: A is the first, B the second."""

HEAT = (
    Colour("#eef3f8", "#1b232d"),
    Colour("#a9cbe6", "#23496b"),
    Colour("#4b96cc", "#2f7fbd"),
    Colour("#00568a", "#8fd0ff"),
)
"""From empty to full: lighter to darker, on dark pages the other way."""


def as_json() -> dict[str, object]:
    """By theme, as scripts take it."""
    themes: dict[str, object] = {}
    for theme in ("light", "dark"):
        themes[theme] = {
            "page": {name: getattr(colour, theme) for name, colour in PAGE.items()},
            "components": {name: getattr(colour, theme) for name, colour in COMPONENTS.items()},
            "work": {name: getattr(colour, theme) for name, colour in WORK.items()},
            "series": [getattr(colour, theme) for colour in SERIES],
            "heat": [getattr(colour, theme) for colour in HEAT],
        }
    return themes


def style_variables(theme: Theme) -> str:
    """As CSS custom properties."""
    named = {name.replace("_", "-"): colour for name, colour in PAGE.items()}
    named |= {f"c-{name.replace('_', '-')}": colour for name, colour in COMPONENTS.items()}
    named |= {f"s-{number}": colour for number, colour in enumerate(SERIES)}
    return "".join(f"--{name}:{getattr(colour, theme)};" for name, colour in named.items())
