"""The bundled family's weights in a folder: config.json with the model's sizes, and safetensors.

Tensors have the training module's names: the layer's number (0 the embedding, 1 to depth the blocks), then
the layer's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.pipe import LayerSpec
from pydantic import ValidationError
from torch import nn

from vdsgen.errors import VdsgenError
from vdsgen.model.layers.tensor_parallel import ALONE, TensorRanks, split_of
from vdsgen.model.objective import diffusion_loss
from vdsgen.model.pipeline import SequentialModel, layer_specs
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.run import read_json_object

STEM = "model"
CLASS_NAME = "Vdt"
NO_NAME = {"name"}
"""Of the sizes: what says nothing about the weights."""


class VdtFolder:
    """An exported folder, its tensors read when a layer asks for them."""

    def __init__(self, folder: Path) -> None:
        """Raises VdsgenError where it is no such folder."""
        self.folder = folder
        content = read_json_object(folder / "config.json")
        if content.get("_class_name") != CLASS_NAME:
            raise VdsgenError(
                f"{folder}/config.json is of {content.get('_class_name')!r}, not of vdsgen's own family",
                remedy="name a folder that `vdsgen export` wrote of a model with family: vdt",
            )
        try:
            sizes = {key: value for key, value in content.items() if not key.startswith("_")}
            self.model = Vdt.model_validate_json(json.dumps(sizes))
        except ValidationError as error:
            raise VdsgenError(f"{folder}/config.json: {error}") from error
        index = folder / f"{STEM}.safetensors.index.json"
        single = folder / f"{STEM}.safetensors"
        self._files: dict[str, str] = {}
        if index.is_file():
            self._files = _weight_map(index)
        elif single.is_file():
            with _opened(single) as tensors:
                self._files = dict.fromkeys(tensors.keys(), single.name)
        else:
            raise VdsgenError(f"{folder} holds neither {single.name} nor {index.name}")

    def check(self, model: Vdt) -> None:
        """Raises VdsgenError where `model` has other sizes."""
        ours, theirs = (one.model_dump(mode="json", exclude=NO_NAME) for one in (self.model, model))
        other = [
            f"{key}: {ours[key]!r} there, {theirs[key]!r} here" for key in ours if ours[key] != theirs[key]
        ]
        if other:
            raise VdsgenError(
                f"{self.folder} is of a model with other sizes ({'; '.join(other)})",
                remedy="train the same sizes, or leave training.start_from out",
            )

    @torch.no_grad()
    def fill(self, layer: nn.Module, index: int, ranks: TensorRanks = ALONE) -> None:
        """Gives layer `index` its weights, or this one of `ranks` its share of them; collective where ZeRO-3
        shares them out. Raises VdsgenError."""
        parameters = dict(layer.named_parameters())
        own = {name: self._files.get(f"{index}.{name}") for name in parameters}
        missing = [name for name, file in own.items() if file is None]
        if missing:
            raise VdsgenError(f"{self.folder} lacks {index}.{missing[0]}")
        shared_out = any(hasattr(parameter, "ds_id") for parameter in parameters.values())
        with deepspeed.zero.GatheredParameters(
            list(parameters.values()), modifier_rank=0, enabled=shared_out
        ):
            for name, parameter in parameters.items():
                with _opened(self.folder / str(own[name])) as tensors:
                    stored = tensors.get_tensor(f"{index}.{name}")
                split = split_of(parameter)
                if split is not None:
                    stored = split.share(stored, ranks)
                if stored.shape != parameter.shape:
                    raise VdsgenError(
                        f"{self.folder}: {index}.{name} has shape {list(stored.shape)}, the model's is "
                        f"{list(parameter.shape)}"
                    )
                parameter.copy_(stored)


class StartedLayer(LayerSpec):  # type: ignore[misc]
    """A layer that is built with a folder's weights in the place of random ones."""

    def __init__(self, spec: LayerSpec, folder: VdtFolder, index: int, ranks: TensorRanks = ALONE) -> None:
        super().__init__(spec.typename, *spec.module_args, **spec.module_kwargs)
        self.folder = folder
        self.index = index
        self.ranks = ranks

    def build(self, log: bool = False) -> nn.Module:
        layer: nn.Module = super().build(log)
        self.folder.fill(layer, self.index, self.ranks)
        return layer


def started_from(
    specs: list[LayerSpec], model: Vdt, folder: Path, ranks: TensorRanks = ALONE
) -> list[LayerSpec]:
    """The layers with the folder's weights, of which each of `ranks` takes its share. Raises VdsgenError
    where they are of another model."""
    found = VdtFolder(folder)
    found.check(model)
    return [StartedLayer(spec, found, index, ranks) for index, spec in enumerate(specs)]


def load_model(folder: Path, geometry: Geometry) -> SequentialModel:
    """The exported model as one module, in fp32 on the processor, for clips of this size.

    Called with (noised, timestep[, condition]) it gives the prediction."""
    model = VdtFolder(folder).model
    specs = started_from(layer_specs(model, geometry, 0), model, folder)
    return SequentialModel(specs, 0, diffusion_loss)


def _weight_map(index: Path) -> dict[str, str]:
    files = read_json_object(index).get("weight_map")
    if not isinstance(files, dict):
        raise VdsgenError(f"{index} has no weight_map")
    for file in set(files.values()):
        if not isinstance(file, str) or Path(file).name != file:
            raise VdsgenError(f"{index}: {file!r} is no file name of this folder")
    return {str(name): str(file) for name, file in files.items()}


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        raise VdsgenError(f"{path} is no safetensors file that can be read: {error}") from error
