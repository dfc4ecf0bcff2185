"""From a run or one of its checkpoints to a folder of weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsgen.errors import VdsgenError
from vdsgen.model.export.safetensors_folder import write_folder
from vdsgen.model.export.stored import Weights, averaged_weights, in_dtype, trained_weights
from vdsgen.model.export.tensor_shares import joined, splits_of
from vdsgen.model.folder import CLASS_NAME, NO_NAME, STEM
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.checkpoints import RECORD, CheckpointRecord, read_checkpoints
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import geometry_of
from vdsgen.spec.load import load_experiment
from vdsgen.spec.run import read_json_object
from vdsgen.spec.training import Lora

if TYPE_CHECKING:
    from vdsgen.model.families.skeleton import Skeleton

DIFFUSERS_STEM = "diffusion_pytorch_model"
ADAPTER_STEM = "pytorch_lora_weights"
DIFFUSERS_METADATA = "lora_adapter_metadata"
"""diffusers/loaders/lora_base.py, LORA_ADAPTER_METADATA_KEY"""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    out: Path
    kind: str
    """`model` or `adapters`"""
    step: int
    averaged: bool
    parameters: int
    files: tuple[Path, ...]


def export(source: Path, out: Path, *, ema: bool = False, rendered: Path | None = None) -> Exported:
    """Writes the weights of `source`, a run directory (its last complete checkpoint) or a checkpoint, to the
    new folder OUT, in the precision that they were trained in. With `ema` their averages.

    `rendered` is the directory that was trained from, where it is no longer where run.json says. Raises
    VdsgenError where there is no such checkpoint, or it cannot be exported.
    """
    folder, record = checkpoint_of(source)
    experiment = experiment_of(folder, rendered)
    weights = whole_weights(experiment, folder, record, ema=ema)
    kind, files = _write(experiment, weights, out)
    parameters = sum(_elements(one.shape) for one in weights.values())
    return Exported(out, kind, record.step, ema, parameters, tuple(files))


def whole_weights(
    experiment: Experiment, folder: Path, record: CheckpointRecord, *, ema: bool = False
) -> Weights:
    """A checkpoint's weights by the training module's names, those that ranks share put together; with `ema`
    their averages. Raises VdsgenError where they cannot be read."""
    try:
        return _whole_weights(experiment, folder, record, ema=ema)
    except (LookupError, TypeError, AttributeError, StopIteration) as error:
        raise VdsgenError(
            f"{folder} does not hold what a checkpoint of this trainer does ({type(error).__name__}: {error})"
        ) from error


def _whole_weights(experiment: Experiment, folder: Path, record: CheckpointRecord, *, ema: bool) -> Weights:
    size, splits = record.layout.tensor_parallel_size, {}
    if size > 1:
        assert isinstance(experiment.model, Vdt), "ranks share no blocks of diffusers"
        splits = splits_of(experiment.model, geometry_of(experiment.data, experiment.model), size)
    weights = joined([trained_weights(folder, record, rank) for rank in range(size)], splits)
    if not ema:
        return weights
    averages = joined([averaged_weights(folder, record, rank) for rank in range(size)], splits)
    return {**weights, **in_dtype(averages, weights)}


def checkpoint_of(source: Path) -> tuple[Path, CheckpointRecord]:
    """The checkpoint that `source` is, or the last complete one of the run that it is."""
    if (source / RECORD).is_file():
        complete, incomplete = read_checkpoints(source.parent.parent)
        found = {path.resolve(): record for path, record in complete.items()}
        if source.resolve() not in found:
            said = [one for one in incomplete if str(source.name) in one]
            raise VdsgenError(said[0] if said else f"{source} is no checkpoint of a run")
        return source, found[source.resolve()]
    complete, incomplete = read_checkpoints(source)
    if not complete:
        raise VdsgenError(
            f"{source} has no complete checkpoint" + (f": {incomplete[-1]}" if incomplete else ""),
            remedy="name a run directory of `vdsgen launch`, or a folder of its checkpoints/",
        )
    return list(complete.items())[-1]


def experiment_of(folder: Path, rendered: Path | None) -> Experiment:
    """What a checkpoint was trained from: the rendered directory's train.yaml."""
    if rendered is None:
        run = folder.parent.parent
        rendered = Path(str(read_json_object(run / "run.json").get("rendered")))
    path = rendered / "train.yaml"
    if not path.is_file():
        raise VdsgenError(
            f"{path} is not there: it says what model the checkpoint is of",
            remedy="name the directory that the run was started with: --rendered DIR",
        )
    return load_experiment(path)


def _write(experiment: Experiment, weights: Weights, out: Path) -> tuple[str, list[Path]]:
    model = experiment.model
    if isinstance(model, Vdt):
        sizes = model.model_dump(mode="json", exclude=NO_NAME)
        return "model", write_folder(out, {"_class_name": CLASS_NAME, **sizes}, weights, STEM)
    if not isinstance(model, DiffusersModel):
        raise VdsgenError("train.yaml does not hold the model's sizes", remedy="render the directory again")
    return _write_diffusers(experiment, model, weights, out)


def _write_diffusers(
    experiment: Experiment, model: DiffusersModel, weights: Weights, out: Path
) -> tuple[str, list[Path]]:
    """The model's folder, or its adapters alone where these were trained: the rest is the user's own."""
    from vdsgen.model.export.names import adapter_tensors, model_tensors
    from vdsgen.model.families.skeleton import build_skeleton

    training = experiment.training
    adapters = training.lora if training.method == "lora" else None
    skeleton = build_skeleton(model.class_name, model.config, training.seed, adapters)
    if adapters is not None:
        return "adapters", _write_adapters(adapters, adapter_tensors(weights, skeleton), skeleton, out)
    content = {"_class_name": model.class_name, "_diffusers_version": _diffusers_version(), **model.config}
    return "model", write_folder(out, content, model_tensors(weights, skeleton), DIFFUSERS_STEM)


def _write_adapters(adapters: Lora, tensors: Weights, skeleton: Skeleton, out: Path) -> list[Path]:
    """One file: `load_lora_adapter` reads no more. Rank, scale and targets are in it, where diffusers looks
    for them, and in a file of their own, where peft does."""
    alpha = adapters.rank if adapters.alpha is None else adapters.alpha
    config = {"r": adapters.rank, "lora_alpha": alpha, "target_modules": list(adapters.targets)}
    named = {f"{skeleton.family.adapter_prefix}.{key}": value for key, value in config.items()}
    return write_folder(
        out,
        {"peft_type": "LORA", **config},
        tensors,
        ADAPTER_STEM,
        config_name="adapter_config.json",
        metadata={DIFFUSERS_METADATA: json.dumps(named, sort_keys=True)},
        file_bytes=sum(one.size_bytes for one in tensors.values()),
    )


def _diffusers_version() -> Any:
    import diffusers

    return diffusers.__version__


def _elements(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
