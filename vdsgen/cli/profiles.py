"""The layer profile of a model: from the catalogue, from the cache, or traced now."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from vdsgen.errors import VdsgenError

if TYPE_CHECKING:
    from vdsgen.spec.architecture import Vdt
    from vdsgen.spec.diffusers_model import DiffusersModel
    from vdsgen.spec.experiment import Experiment
    from vdsgen.spec.pretrained import PretrainedModel, PretrainedProfile
    from vdsgen.spec.profile import ModelProfile


def find_profile(experiment: Experiment) -> ModelProfile:
    """Of an experiment's model, as its method trains it: known sizes are looked up; others are traced, which
    takes seconds and needs torch, and remembered.

    Raises VdsgenError where sizes must be traced and torch is missing.
    """
    from vdsgen.catalog.profiles import diffusers_sha256, profile_for, store_profile, trained_profile
    from vdsgen.catalog.resolve import resolve_model
    from vdsgen.spec.diffusers_model import DiffusersModel

    model, training = resolve_model(experiment.model), experiment.training
    known = profile_for(model, training)
    if known is not None:
        return known
    click.echo(f"tracing the layers of {model.name}: no profile of these sizes is known yet", err=True)
    if not isinstance(model, DiffusersModel):
        profile = trace(model)
        store_profile(profile)
        return profile
    with_adapters = trace_pretrained(model.name, model, progress_line, targets=training.lora.targets)
    store_profile(with_adapters, diffusers_sha256(model, training.lora.targets))
    return trained_profile(with_adapters, training)


def progress_line(text: str) -> None:
    """What is traced now, where a person watches."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


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


def traced_entry(model: PretrainedModel | DiffusersModel) -> PretrainedModel:
    """What tracing asks of a model, whether the catalogue has it or a folder."""
    from vdsgen.spec.pretrained import PretrainedModel

    if isinstance(model, PretrainedModel):
        return model
    return PretrainedModel(
        summary="",
        class_name=model.class_name,
        config=model.config,
        config_source="",
        published_parameters=None,
        parameters_source="",
        temporal_factor=1,
        spatial_factor=1,
        temporal_patch=model.temporal_patch,
        spatial_patch=model.spatial_patch,
        text_tokens=model.text_tokens or 1,
        only_full_text=model.only_full_text,
    )


def trace_pretrained(
    name: str,
    model: PretrainedModel | DiffusersModel,
    said: Callable[[str], None],
    *,
    targets: Sequence[str] | None = None,
) -> PretrainedProfile:
    """The profile of a diffusers model, with adapters on `targets` (the default ones where that is None).
    Raises VdsgenError where torch, diffusers or peft is missing."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            from vdsgen.profile.families.build import build_pretrained_profile

            profile = build_pretrained_profile(name, traced_entry(model), said, targets=targets)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "vdsgen":
            raise
        raise VdsgenError(
            f"tracing the layers of {name} needs {error.name}, which is not installed",
            remedy="pip install 'vdsgen[train,pretrained]'",
        ) from error
    said("")
    return profile
