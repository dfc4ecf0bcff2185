"""A diffusers model in a local folder: its class and configuration, read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vdsgen.errors import InputError, Problem
from vdsgen.spec.recipes import CLASSES
from vdsgen.spec.shown import shown

CONFIG = "config.json"
PARTS = ("transformer", "unet")
"""Folders of a whole pipeline that hold what is trained."""
LARGEST_CONFIG_BYTES = 1_000_000


def read_local_model(path: str, *, key: str) -> tuple[str, dict[str, Any], Path | None]:
    """Class name, configuration, and the folder of the weights: None where `path` is a config.json itself,
    or its folder holds no safetensors.

    Raises InputError where `path` is neither a model's folder, nor a pipeline's, nor a config.json.
    """
    given = Path(path)
    file = given if given.is_file() else _config_in(given)
    if file is None:
        raise _problem(f"{path} is no folder with a {CONFIG}, and no such file", key)
    config = _json_object(file, key)
    class_name = config.pop("_class_name", None)
    if class_name not in CLASSES:
        raise _problem(
            f"{file} is of {shown(str(class_name))}, which vdsgen cannot cut into pipeline layers",
            key,
            remedy=f"there are {', '.join(CLASSES)}",
        )
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    folder = None if given.is_file() or not any(file.parent.glob("*.safetensors")) else file.parent
    return str(class_name), config, folder


def _config_in(folder: Path) -> Path | None:
    """Of the model itself, or of the part that is trained of a pipeline."""
    places = [folder / CONFIG, *(folder / part / CONFIG for part in PARTS)]
    return next((place for place in places if place.is_file()), None)


def _json_object(file: Path, key: str) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_CONFIG_BYTES + 1)
    except OSError as error:
        raise _problem(f"{file} cannot be read: {error.strerror}", key) from error
    if len(content) > LARGEST_CONFIG_BYTES:
        raise _problem(f"{file} is longer than a configuration is", key)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _problem(f"{file} is no JSON: {error}", key) from error
    if not isinstance(value, dict):
        raise _problem(f"{file} is no JSON object", key)
    return value


def _problem(message: str, key: str, *, remedy: str | None = None) -> InputError:
    usual = (
        f"name a folder that diffusers saved a model to (with {CONFIG}), its pipeline's folder, or that file"
    )
    return InputError([Problem(message, key=key, remedy=remedy or usual)])
