"""Layer profiles by architecture: those that come with the package, then those traced on this machine."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from vdsgen import __version__
from vdsgen.catalog.load import FOLDER, pretrained
from vdsgen.catalog.names import unknown_name
from vdsgen.spec.architecture import Vdt, architecture_sha256
from vdsgen.spec.canonical import canonical_json
from vdsgen.spec.pretrained import PretrainedProfile
from vdsgen.spec.profile import AttentionKernel, ModelProfile

PRETRAINED_FOLDER = FOLDER / "profiles" / "pretrained"


def catalog_profile(
    name: str,
    *,
    variant: Literal["full", "lora"] = "full",
    rank: int = 16,
    mixed: bool = False,
    attention: AttentionKernel = "flash",
) -> ModelProfile:
    """The committed profile of a model of another library (`load.pretrained`), for one way to train it.

    `lora` trains adapters of `rank` on attention's projections alone. `mixed` puts the costs under bf16
    autocast (full: of fp32 weights; lora: of bf16 weights and fp32 adapters) in the place of `half`.
    Raises InputError for an unknown name, ValueError for an attention implementation that was not traced
    (lora and mixed: flash only).
    """
    if name not in pretrained():
        otherwise = f"there are {', '.join(pretrained())}"
        raise unknown_name(
            "model", name, {entry: entry for entry in pretrained()}, key="model", otherwise=otherwise
        )
    stored = _stored(name)
    profile = stored.full if variant == "full" else stored.with_adapters(rank)
    if not mixed:
        return profile.with_attention(attention)
    if attention != "flash":
        raise ValueError(f"under autocast only flash attention was traced, not {attention}")
    types = {
        kind: layer.model_copy(update={"half": layer.mixed}) for kind, layer in profile.layer_types.items()
    }
    return profile.model_copy(update={"layer_types": types})


@cache
def _stored(name: str) -> PretrainedProfile:
    return PretrainedProfile.model_validate_json((PRETRAINED_FOLDER / f"{name}.json").read_bytes())


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
