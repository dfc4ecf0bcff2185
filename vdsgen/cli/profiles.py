"""The layer profile of a model: from the catalogue, from the cache, or traced now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vdsgen.errors import VdsgenError

if TYPE_CHECKING:
    from vdsgen.spec.architecture import PresetModel, Vdt
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
    try:
        from vdsgen.profile.build import build_profile
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vdsgen":
            raise
        raise VdsgenError(
            f"the model {model.name} has sizes that no stored layer profile is of, and tracing them needs "
            f"{error.name}, which is not installed",
            remedy="pip install 'vdsgen[train]', or use a model of `vdsgen catalog models`",
        ) from error
    profile = build_profile(model)
    store_profile(profile)
    return profile
