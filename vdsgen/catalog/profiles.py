"""Layer profiles by architecture: those that come with the package, then those traced on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from vdsgen import __version__
from vdsgen.catalog.load import FOLDER
from vdsgen.spec.architecture import Vdt, architecture_sha256
from vdsgen.spec.canonical import canonical_json
from vdsgen.spec.profile import ModelProfile


def profile_for(model: Vdt) -> ModelProfile | None:
    """The profile of a model's layers, or None where nobody has traced them yet."""
    sha256 = architecture_sha256(model)
    for content in _committed():
        if sha256.encode() in content:
            return ModelProfile.model_validate_json(content)
    try:
        return ModelProfile.model_validate_json(_cache_file(sha256).read_bytes())
    except (OSError, ValidationError):  # absent, unreadable or cut short: traced again, and replaced
        return None


def store_profile(profile: ModelProfile) -> Path:
    """Keeps a traced profile in the user's cache. Raises OSError where it cannot be written."""
    from vdsgen.files import write_atomically

    path = _cache_file(profile.architecture_sha256)
    write_atomically(path, canonical_json(profile) + b"\n")
    return path


def _committed() -> list[bytes]:
    return [path.read_bytes() for path in sorted((FOLDER / "profiles").glob("*.json"))]


def _cache_file(sha256: str) -> Path:
    """One folder a version: another version's layers may cost something else."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path there is to be ignored (XDG Base Directory Specification).
    root = Path(configured) if Path(configured).is_absolute() else Path.home() / ".cache"
    return root / "vdsgen" / "profiles" / __version__ / f"{sha256}.json"
