"""Weights from a local diffusers folder, each tensor read when its layer is built and not before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vdsgen.errors import VdsgenError
from vdsgen.model.families.skeleton import Skeleton, model_class, saved_tensors
from vdsgen.model.weight_files import DIFFUSERS, weight_file


class FolderWeights:
    """`config.json` and `diffusion_pytorch_model.safetensors`, or several such files with their index; or a
    variant of them (vdsgen.model.weight_files).

    The names of all tensors are compared with the model's at once, shapes when a layer is filled.
    """

    def __init__(self, folder: Path, skeleton: Skeleton) -> None:
        self.folder = folder
        check_class(folder, skeleton.family.class_name)
        self._files = tensor_files(folder)
        self._compare(skeleton)

    def fill(self, layer: nn.Module, names: Mapping[str, str]) -> None:
        """Raises VdsgenError for a tensor of another shape, or a file that is not to be read."""
        own = dict(saved_tensors(layer))
        by_file: dict[Path, list[str]] = {}
        for name, in_model in names.items():
            by_file.setdefault(self._files[in_model], []).append(name)
        for path, of_file in by_file.items():
            self._fill_from(path, {name: names[name] for name in of_file}, own)

    def _fill_from(self, path: Path, names: Mapping[str, str], own: Mapping[str, torch.Tensor]) -> None:
        with _opened(path) as tensors:
            for name, in_model in names.items():
                stored, target = tuple(tensors.get_slice(in_model).get_shape()), own[name]
                if stored != tuple(target.shape):
                    raise VdsgenError(
                        f"{path}: {in_model} has shape {list(stored)}, the model's is {list(target.shape)}",
                        remedy="the configuration and the weights are of different models",
                    )
                with torch.no_grad():
                    target.copy_(tensors.get_tensor(in_model))

    def _compare(self, skeleton: Skeleton) -> None:
        missing = sorted(skeleton.shapes.keys() - self._files.keys())
        if missing:
            raise VdsgenError(f"{self.folder} lacks {_some(missing)} of {skeleton.family.class_name}")
        ignored = getattr(model_class(skeleton.family.class_name), "_keys_to_ignore_on_load_unexpected", None)
        unexpected = sorted(
            name
            for name in self._files.keys() - skeleton.shapes.keys()
            if not any(part in name for part in ignored or ())
        )
        if unexpected:
            raise VdsgenError(
                f"{self.folder} holds {_some(unexpected)}, which this {skeleton.family.class_name} lacks",
                remedy="the configuration and the weights are of different models",
            )


def read_config(folder: Path) -> tuple[str, dict[str, Any]]:
    """The class and its configuration, of what `config.json` says, without diffusers' own keys. Raises
    VdsgenError."""
    content = _read_json(folder / "config.json")
    class_name = content.get("_class_name")
    if not isinstance(class_name, str):
        raise VdsgenError(f"{folder}/config.json names no _class_name, as diffusers' folders do")
    return class_name, {key: value for key, value in content.items() if not key.startswith("_")}


def check_class(folder: Path, class_name: str) -> None:
    """Raises VdsgenError where the folder is of another class."""
    found, _ = read_config(folder)
    if found != class_name:
        raise VdsgenError(f"{folder} is of {found}, the model is a {class_name}")


def tensor_files(folder: Path) -> dict[str, Path]:
    """The name of each tensor in the folder -> the file that holds it. Raises VdsgenError."""
    found = weight_file(folder, DIFFUSERS)
    if found.is_index:
        return _indexed(found.path)
    with _opened(found.path) as tensors:
        return dict.fromkeys(tensors.keys(), found.path)


def _indexed(index: Path) -> dict[str, Path]:
    files = _read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise VdsgenError(f"{index} has no weight_map")
    for file in set(files.values()):
        if not isinstance(file, str) or Path(file).name != file:
            raise VdsgenError(f"{index}: {file!r} is no file name of this folder")
        if not (index.parent / file).is_file():
            raise VdsgenError(f"{index.parent} lacks {file}, which its index names")
    return {str(name): index.parent / file for name, file in files.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VdsgenError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise VdsgenError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise VdsgenError(f"{path} holds no JSON object")
    return content


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        raise VdsgenError(f"{path} is no safetensors file that can be read: {error}") from error


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
