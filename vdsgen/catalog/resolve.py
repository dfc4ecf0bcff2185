"""The model of an experiment, with all its sizes, and whether it fits the experiment's clips."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from vdsgen.catalog.load import models, pretrained
from vdsgen.catalog.local_models import CONFIG, PARTS, read_local_model
from vdsgen.catalog.names import unknown_name
from vdsgen.errors import InputError, Problem
from vdsgen.spec.architecture import Geometry, PresetModel, Vdt
from vdsgen.spec.base import SpecError
from vdsgen.spec.data import ClipSize, Data, size_key
from vdsgen.spec.diffusers_model import DiffusersModel, DiffusersSource
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import TrainedModel, geometry_of, latent_shape, spatial_patch
from vdsgen.spec.recipes import trained_recipe
from vdsgen.spec.recipes.changes import RecipeChanges
from vdsgen.spec.sampling import solver_settings
from vdsgen.spec.shown import shown
from vdsgen.spec.training import Diffusion


def resolve_experiment(experiment: Experiment) -> Experiment:
    """The experiment with its model's sizes written out, and how the model's sample videos are made.

    Raises InputError, with keys but no places, for a model that the catalogue does not hold and for one
    that does not fit the clips. An experiment that is resolved already stays as it is.
    """
    model = resolve_model(experiment.model)
    problems = model_problems(experiment, model)
    if problems:
        raise InputError(problems)
    sampling = experiment.training.sampling
    sampling = sampling.model_copy(update=solver_settings(sampling, model)._asdict())
    training = experiment.training.model_copy(update={"sampling": sampling})
    return experiment.model_copy(update={"model": model, "training": training})


def resolve_model(model: str | Vdt | PresetModel | DiffusersSource | DiffusersModel) -> TrainedModel:
    """The sizes of a catalogue model, of a changed one, of a local folder's, or those that are given."""
    if isinstance(model, Vdt | DiffusersModel):
        return model
    if isinstance(model, str):
        return _named(model, "model")
    if isinstance(model, DiffusersSource):
        return _of_source(model)
    base = _named(model.preset, "model.preset")
    if not isinstance(base, Vdt):
        message = f"{model.preset} is a diffusers model"
        remedy = f"write model: {{diffusers: {model.preset}, changes: {{...}}}}"
        raise InputError([Problem(message, key="model.preset", remedy=remedy)])
    changes = {key: value for key, value in model.model_dump(exclude={"preset"}).items() if value is not None}
    changed = base.model_copy(update=changes)
    return base if changed == base else changed.model_copy(update={"name": f"{base.name}-changed"})


def _named(name: str, key: str) -> TrainedModel:
    if name in models():
        return models()[name].sizes
    if name in pretrained() or _is_path(name):
        return _of_source(DiffusersSource(diffusers=name), key)
    known = [*models(), *pretrained()]
    otherwise = f"there are {', '.join(known)}; a folder or config.json of diffusers; or sizes: "
    otherwise += "model: {family: vdt, ...}"
    raise unknown_name("model", name, {entry: entry for entry in known}, key=key, otherwise=otherwise)


def _is_path(name: str) -> bool:
    return name.endswith(".json") or "/" in name or Path(name).exists()


def _of_source(source: DiffusersSource, key: str = "model.diffusers") -> DiffusersModel:
    """Raises InputError where neither the catalogue nor the disk has it, or the class cannot be cut."""
    if source.diffusers in pretrained():
        entry, found = pretrained()[source.diffusers], None
        class_name, config, name = entry.class_name, dict(entry.config), source.diffusers
    else:
        class_name, config, found = read_local_model(source.diffusers, key=key)
        name = _name_of_path(source.diffusers)
    unknown = [one for one in source.changes if one not in config]
    if unknown:
        message = f"the configuration has no {', '.join(map(shown, unknown))}"
        remedy = f"it has {', '.join(sorted(config))}"
        raise InputError([Problem(message, key="model.changes", remedy=remedy)])
    changed = any(config[one] != value for one, value in source.changes.items())
    try:
        return DiffusersModel(
            family="diffusers",
            name=source.name or (f"{name}-changed" if changed else name),
            class_name=class_name,
            config={**config, **source.changes},
            weights=source.weights or (str(found) if found else None),
        )
    except ValidationError as error:
        messages = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
        raise InputError([Problem(f"{source.diffusers}: {messages}", key=key)]) from error


def _name_of_path(path: str) -> str:
    """The last folder's name that is not the part's own, as a name may be written."""
    parts = [part for part in Path(path).parts if part not in (CONFIG, *PARTS, "/", ".", "..")]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", parts[-1] if parts else "model").strip("-._")[:64]
    return name or "model"


def model_problems(experiment: Experiment, model: TrainedModel) -> list[Problem]:
    """What does not fit between the resolved model, the clips and the method."""
    data = experiment.data
    problems = [
        *_factor_problems(data, model),
        *_channel_problems(experiment, model),
        *_text_problems(data, model),
        *_method_problems(experiment, model),
        *_recipe_problems(experiment, model),
    ]
    for index, size in enumerate(data.sizes):
        problems += _size_problems(data, model, size, size_key(index))
    return problems


def _factor_problems(data: Data, model: TrainedModel) -> list[Problem]:
    """Of a pipeline's autoencoder; those of `data.latents` are looked at when the experiment is read."""
    if isinstance(model, Vdt) or data.pipeline is None:
        return []
    _, spatial, temporal = latent_shape(data, model)
    problems = []
    for index, size in enumerate(data.sizes):
        prefix = f"data.{size_key(index)}." if index else "data."
        if (size.frames - 1) % temporal:
            message = f"{size.frames} is not 1 + a multiple of the autoencoder's temporal factor ({temporal})"
            problems.append(Problem(message, key=f"{prefix}frames"))
        for key, value in (("height", size.height), ("width", size.width)):
            if value % spatial:
                message = f"{value} is no multiple of the autoencoder's spatial factor ({spatial})"
                problems.append(Problem(message, key=f"{prefix}{key}"))
    return problems


def _method_problems(experiment: Experiment, model: TrainedModel) -> list[Problem]:
    if experiment.training.method == "lora" and isinstance(model, Vdt):
        message = f"adapters (lora) train on a model of diffusers; {model.name} is of the bundled family"
        remedy = "choose method: full, or a model such as " + next(iter(pretrained()))
        return [Problem(message, key="training.method", remedy=remedy)]
    return []


def _recipe_problems(experiment: Experiment, model: TrainedModel) -> list[Problem]:
    """What training.diffusion says that means nothing to the model."""
    at, diffusion = "training.diffusion", experiment.training.diffusion
    if isinstance(model, Vdt):
        if diffusion.recipe is None:
            return []
        message = f"recipes are of models of diffusers; {model.name} is of the bundled family"
        remedy = f"write the keys into {at} itself"
        return [Problem(message, key=f"{at}.recipe", remedy=remedy)]
    problems = []
    for key, value in Diffusion():
        if key != "recipe" and getattr(diffusion, key) != value:
            message = f"is of the bundled family; {model.name} is trained by its family's recipe"
            known = key in RecipeChanges.model_fields
            remedy = f"write {key} into {at}.recipe" if known else "leave it out (docs/recipes.md)"
            problems.append(Problem(message, key=f"{at}.{key}", remedy=remedy))
    try:
        trained_recipe(model, experiment)
    except SpecError as error:
        problems.append(Problem(str(error), key=f"{at}.recipe.{error.key}", remedy=error.remedy))
    return problems


def _size_problems(data: Data, model: TrainedModel, size: ClipSize, at: str) -> list[Problem]:
    """What does not fit between the model and clips of one size, which is written at data.`at`."""
    prefix = f"data.{at}." if at else "data."
    try:
        geometry = geometry_of(data, model, size)
    except ValueError as error:
        edge = spatial_patch(model) * latent_shape(data, model)[1]
        remedy = f"height and width must be multiples of {edge} (patch size x the codec's spatial factor)"
        return [Problem(str(error), key=f"{prefix}height", remedy=remedy)]
    if isinstance(model, Vdt) and model.position == "learned":
        return _position_problems(model, geometry, at)
    return []


def _position_problems(model: Vdt, geometry: Geometry, at: str) -> list[Problem]:
    prefix = f"data.{at}." if at else "data."
    problems = []
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


def _channel_problems(experiment: Experiment, model: TrainedModel) -> list[Problem]:
    latents = experiment.data.latents
    wanted = model.in_channels if isinstance(model, Vdt) else model.recipe.autoencoder.channels
    if wanted == latent_shape(experiment.data, model)[0]:
        return []
    message = f"{model.name} takes {wanted} channels, {latents.codec} latents have {latents.channels}"
    if isinstance(model, DiffusersModel):
        remedy = "set data.pipeline to the model's local pipeline folder, or choose other latents"
        return [Problem(message, key="data.latents", remedy=remedy)]
    if isinstance(experiment.model, str):
        remedy = f"write model: {{preset: {experiment.model}, in_channels: {latents.channels}}}"
    else:
        remedy = f"set in_channels: {latents.channels}"
    return [Problem(message, key="model", remedy=f"{remedy}, or choose other latents")]


def _text_problems(data: Data, model: TrainedModel) -> list[Problem]:
    if isinstance(model, DiffusersModel):
        if data.text_encoder is None:
            return []
        message = f"{model.name} takes no other text than its pipeline's: a pipeline has its own encoders"
        remedy = "remove text_encoder, and set data.pipeline to the model's local pipeline folder"
        return [Problem(message, key="data.text_encoder", remedy=remedy)]
    if data.pipeline is not None:
        message = f"{model.name} is of the bundled family, which takes latents and text_encoder"
        return [Problem(message, key="data.pipeline", remedy="remove pipeline")]
    if model.condition == "text" and data.text_encoder is None:
        remedy = "add text_encoder: {path: FOLDER} (a transformers text encoder), or choose condition: class"
        message = f"is missing; {model.name} is conditioned on text"
        return [Problem(message, key="data.text_encoder", remedy=remedy)]
    if model.condition != "text" and data.text_encoder is not None:
        message = f"{model.name} is not conditioned on text (condition: {model.condition})"
        remedy = "remove text_encoder, or set condition: text in the model"
        return [Problem(message, key="data.text_encoder", remedy=remedy)]
    return []
