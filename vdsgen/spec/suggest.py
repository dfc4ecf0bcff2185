"""Did you mean: the known name nearest to what was written."""

from __future__ import annotations

import re
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` looks like, or None.

    Case, and what separates the parts of a name, do not matter: `RTX4090` is near `rtx-4090`.
    """
    import difflib

    known = list(known)
    plain = _letters(word)
    by_letters = {_letters(name): name for name in reversed(known)}
    if plain in by_letters:
        return by_letters[plain]
    if len(word) > 200:
        return None
    near = difflib.get_close_matches(plain, by_letters, n=1, cutoff=0.6)
    return by_letters[near[0]] if near else None


def _letters(word: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", word.lower())
