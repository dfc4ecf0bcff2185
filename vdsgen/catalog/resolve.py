"""The model of an experiment, with all its sizes, and whether it fits the experiment's clips."""

from __future__ import annotations

from pathlib import Path

from vdsgen.catalog.load import models, pretrained
from vdsgen.catalog.names import unknown_name
from vdsgen.errors import InputError, Problem
from vdsgen.spec.architecture import PresetModel, Vdt
from vdsgen.spec.experiment import ClipSize, Data, Experiment, geometry_of, size_key


def resolve_experiment(experiment: Experiment) -> Experiment:
    """The experiment with its model's sizes written out.

    Raises InputError, with keys but no places, for a model that the catalogue does not hold and for one
    that does not fit the clips. An experiment that is resolved already stays as it is.
    """
    model = resolve_model(experiment.model)
    problems = model_problems(experiment, model)
    if problems:
        raise InputError(problems)
    return experiment.model_copy(update={"model": model})


def resolve_model(model: str | Vdt | PresetModel) -> Vdt:
    """The sizes of a catalogue model, of a changed one, or those that are given."""
    if isinstance(model, Vdt):
        return model
    if isinstance(model, str):
        return _sizes(model, "model")
    base = _sizes(model.preset, "model.preset")
    changes = {key: value for key, value in model.model_dump(exclude={"preset"}).items() if value is not None}
    changed = base.model_copy(update=changes)
    return base if changed == base else changed.model_copy(update={"name": f"{base.name}-changed"})


def _sizes(name: str, key: str) -> Vdt:
    if name in models():
        return models()[name].sizes
    if name in pretrained():
        raise InputError(
            [
                Problem(
                    f"{name} is a diffusers model: the catalogue holds what its layers cost, but this "
                    f"version plans and trains models of the bundled family only",
                    key=key,
                    remedy=f"name one of {', '.join(models())}, or give sizes: family: vdt, ...; "
                    f"`vdsgen profile {name}` shows the layers",
                )
            ]
        )
    if name.endswith(".json") or "/" in name or Path(name).exists():
        raise InputError(
            [
                Problem(
                    f"{name} is a path; this version plans models of the bundled family only, "
                    f"not diffusers configurations",
                    key=key,
                    remedy=f"name a catalogue model ({', '.join(models())}) or give sizes: family: vdt, ...",
                )
            ]
        )
    otherwise = f"there are {', '.join(models())}; sizes may also be given: model: {{family: vdt, ...}}"
    raise unknown_name("model", name, {entry: entry for entry in models()}, key=key, otherwise=otherwise)


def model_problems(experiment: Experiment, model: Vdt) -> list[Problem]:
    """What does not fit between the resolved model and the clips."""
    data = experiment.data
    problems = [*_channel_problems(experiment, model), *_text_problems(data, model)]
    for index, size in enumerate(data.sizes):
        problems += _size_problems(data, model, size, size_key(index))
    return problems


def _size_problems(data: Data, model: Vdt, size: ClipSize, at: str) -> list[Problem]:
    """What does not fit between the model and clips of one size, which is written at data.`at`."""
    prefix = f"data.{at}." if at else "data."
    try:
        geometry = geometry_of(data, model, size)
    except ValueError as error:
        edge = model.patch_size * data.latents.spatial_factor
        remedy = f"height and width must be multiples of {edge} (patch size x the codec's spatial factor)"
        return [Problem(str(error), key=f"{prefix}height", remedy=remedy)]
    problems = []
    if model.position == "learned":
        for count, limit, name, key in (
            (geometry.frames, model.max_frames, "max_frames", "frames"),
            (geometry.patches, model.max_patches, "max_patches", "height"),
        ):
            if count > limit:
                message = f"learned positions for {limit}, the clips have {count}"
                place = f"{prefix}{key}" if at else f"model.{name}"
                where = " in the model" if at else ""
                remedy = f"set {name}: {count} or more{where}"
                problems.append(Problem(message, key=place, remedy=remedy))
    return problems


def _channel_problems(experiment: Experiment, model: Vdt) -> list[Problem]:
    latents = experiment.data.latents
    if model.in_channels == latents.channels:
        return []
    message = (
        f"{model.name} takes {model.in_channels} channels, {latents.codec} latents have {latents.channels}"
    )
    if isinstance(experiment.model, str):
        remedy = f"write model: {{preset: {experiment.model}, in_channels: {latents.channels}}}"
    else:
        remedy = f"set in_channels: {latents.channels}"
    return [Problem(message, key="model", remedy=f"{remedy}, or choose other latents")]


def _text_problems(data: Data, model: Vdt) -> list[Problem]:
    if model.condition == "text" and data.text_encoder is None:
        remedy = "add text_encoder: {path: FOLDER} (a transformers text encoder), or choose condition: class"
        message = f"is missing; {model.name} is conditioned on text"
        return [Problem(message, key="data.text_encoder", remedy=remedy)]
    if model.condition != "text" and data.text_encoder is not None:
        message = f"{model.name} is not conditioned on text (condition: {model.condition})"
        remedy = "remove text_encoder, or set condition: text in the model"
        return [Problem(message, key="data.text_encoder", remedy=remedy)]
    return []
