"""The layer profile of a model: from the catalogue, from the cache, or traced now."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from vdsgen.errors import VdsgenError

if TYPE_CHECKING:
    from vdsgen.spec.architecture import PresetModel, Vdt
    from vdsgen.spec.pretrained import PretrainedModel, PretrainedProfile
    from vdsgen.spec.profile import ModelProfile


def find_profile(model: str | Vdt | PresetModel) -> ModelProfile:
    """Known sizes are looked up; others are traced, which takes seconds and needs torch, and remembered.

    Raises VdsgenError where sizes must be traced and torch is missing.
    """
    from vdsgen.catalog.profiles import profile_for, store_profile
    from vdsgen.catalog.resolve import resolve_model

    model = resolve_model(model)
    known = profile_for(model)
    if known is not None:
        return known
    click.echo(f"tracing the layers of {model.name}: no profile of these sizes is known yet", err=True)
    profile = trace(model)
    store_profile(profile)
    return profile


def trace(model: Vdt, *, other_attention: bool = False) -> ModelProfile:
    """The profile, by running the layers. Raises VdsgenError where torch or DeepSpeed is missing."""
    try:
        # DeepSpeed binds its log to what standard output is while it is imported; ours carries JSON.
        with contextlib.redirect_stdout(sys.stderr):
            from vdsgen.profile.build import build_profile, tensor_parallel_sizes
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vdsgen":
            raise
        raise VdsgenError(
            f"no stored layer profile is of the sizes of {model.name}, and tracing them needs {error.name}, "
            f"which is not installed",
            remedy="pip install 'vdsgen[train]', or use a model of `vdsgen catalog models`",
        ) from error
    return build_profile(
        model, other_attention=other_attention, tensor_parallel_sizes=tensor_parallel_sizes(model)
    )


def trace_pretrained(name: str, entry: PretrainedModel, said: Callable[[str], None]) -> PretrainedProfile:
    """The profile of a diffusers model. Raises VdsgenError where torch, diffusers or peft is missing."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            from vdsgen.profile.families.build import build_pretrained_profile

            profile = build_pretrained_profile(name, entry, said)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vdsgen":
            raise
        raise VdsgenError(
            f"tracing the layers of {name} needs {error.name}, which is not installed",
            remedy="pip install 'vdsgen[train,pretrained]'",
        ) from error
    said("")
    return profile
