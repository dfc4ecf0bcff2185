"""One way to write a spec as bytes, and the hash of those bytes."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel


def canonical_json(spec: BaseModel, *, without: frozenset[str] = frozenset()) -> bytes:
    """The spec as JSON with sorted keys, all defaults written out and no spaces, in UTF-8.

    Equal specs give equal bytes, however they were written. `without` names top-level keys to leave out.
    """
    data = spec.model_dump(mode="json", exclude=set(without))
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_of(spec: BaseModel) -> str:
    """Hexadecimal SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(spec)).hexdigest()
