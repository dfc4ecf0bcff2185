"""A name that the catalogue does not hold: what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vdsgen.errors import InputError, Problem
from vdsgen.spec.shown import shown
from vdsgen.spec.suggest import did_you_mean

MOST_SUGGESTIONS = 6

_BRANDS = re.compile(r"\b(nvidia|tesla|geforce|quadro|amd|instinct)\b")
"""Words before a product's own name."""


def unknown_name(kind: str, name: str, known: Mapping[str, str], *, key: str, otherwise: str) -> InputError:
    """`known` maps catalogue names to what else they are called; `otherwise` ends the remedy.

    The name is compared without case and punctuation, so `RTX 4090` finds `rtx-4090`; part of a name,
    such as `a100`, finds all that hold it.
    """
    near = similar_names(name, known)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    problem = Problem(f"no {kind} {shown(name)} in the catalogue", key=key, remedy=f"{hint}{otherwise}")
    return InputError([problem])


def similar_names(name: str, known: Mapping[str, str]) -> list[str]:
    """Catalogue names that `name` may stand for, best first; few, or none."""
    letters = _letters(name)
    if not letters or len(name) > 200:
        return []
    exact = [entry for entry, other in known.items() if letters in (_letters(entry), _letters(other))]
    if exact:
        return exact[:1]
    holding = [entry for entry, other in known.items() if letters in _letters(f"{other} {entry}")]
    held = [entry for entry in known if len(_letters(entry)) > 3 and _letters(entry) in letters]
    found = holding or sorted(held, key=len, reverse=True)[:1]
    if found:
        return found[:MOST_SUGGESTIONS]
    near = did_you_mean(name, known)
    return [near] if near else []


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", _BRANDS.sub("", name.lower()))
