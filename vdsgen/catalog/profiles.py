"""Layer profiles by architecture: those that come with the package, then those traced on this machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from vdsgen import __version__
from vdsgen.catalog.load import FOLDER, pretrained
from vdsgen.catalog.names import unknown_name
from vdsgen.spec.architecture import architecture_sha256
from vdsgen.spec.canonical import canonical_json
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.geometry import TrainedModel
from vdsgen.spec.pretrained import PretrainedProfile
from vdsgen.spec.profile import AttentionKernel, ModelProfile
from vdsgen.spec.training import Lora, Training

PRETRAINED_FOLDER = FOLDER / "profiles" / "pretrained"
DEFAULT_TARGETS = Lora.model_fields["targets"].default
"""Where adapters go in the profiles that come with the package."""


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


def profile_for(model: TrainedModel, training: Training | None = None) -> ModelProfile | None:
    """The profile of a model's layers as `training` trains them (None: every weight); None where nobody has
    traced them yet."""
    if isinstance(model, DiffusersModel):
        return _diffusers_profile(model, training)
    sha256 = architecture_sha256(model)
    for content in _committed():
        if sha256.encode() in content:
            return ModelProfile.model_validate_json(content)
    try:
        return ModelProfile.model_validate_json(_cache_file(sha256).read_bytes())
    except (OSError, ValidationError):  # absent, unreadable or cut short: traced again, and replaced
        return None


def trained_profile(stored: PretrainedProfile, training: Training | None) -> ModelProfile:
    """Of what was traced, how `training` trains it."""
    if training is None or training.method == "full":
        return stored.full
    return stored.with_adapters(training.lora.rank)


def _diffusers_profile(model: DiffusersModel, training: Training | None) -> ModelProfile | None:
    targets = DEFAULT_TARGETS if training is None else training.lora.targets
    if training is None or training.method == "full" or targets == DEFAULT_TARGETS:
        for name, entry in pretrained().items():
            if (entry.class_name, entry.config) == (model.class_name, model.config):
                return trained_profile(_stored(name), training)
    try:
        content = _cache_file(diffusers_sha256(model, targets)).read_bytes()
        return trained_profile(PretrainedProfile.model_validate_json(content), training)
    except (OSError, ValidationError):
        return None


def diffusers_sha256(model: DiffusersModel, targets: Sequence[str]) -> str:
    """Names the layers of this class and configuration, and where adapters go."""
    named = [model.class_name, model.config, list(targets)]
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def store_profile(profile: ModelProfile | PretrainedProfile, sha256: str | None = None) -> Path:
    """Keeps a traced profile in the user's cache. Raises OSError where it cannot be written."""
    from vdsgen.files import write_atomically

    if isinstance(profile, ModelProfile):
        sha256 = profile.architecture_sha256
    assert sha256 is not None, "of a profile with adapters, by what they go to"
    path = _cache_file(sha256)
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
