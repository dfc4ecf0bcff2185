"""A diffusers pipeline in a local folder, loaded without network, pickles or code of the folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vdsgen.errors import VdsgenError
from vdsgen.model.weight_files import TRANSFORMERS, variant_of

_ENDS_BYTES = 2**20
"""Of the head and the tail of a weights file that its identity is made of."""
_BLOCK_BYTES, _BLOCKS = 2**16, 32
"""Besides: blocks spread over the file."""


def part_of(folder: Path, name: str) -> Path:
    """A part's folder. Raises VdsgenError where the pipeline has no such part."""
    part = folder / name
    if not part.is_dir():
        there = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
        raise VdsgenError(
            f"{folder} has no folder {name}" + (f"; it has {', '.join(there)}" if there else ""),
            remedy="name the folder of a whole diffusers pipeline, with vae, text_encoder and so on",
        )
    return part


def load_tokenizer(folder: Path, name: str) -> Any:
    part = part_of(folder, name)
    with loading(part):
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(part), local_files_only=True, trust_remote_code=False
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_encoder(
    folder: Path, name: str, class_name: str, device: torch.device | str, dtype: torch.dtype
) -> Any:
    """A transformers model for inference. Raises VdsgenError for a folder of another kind of model: weights
    that do not fit would be random, at the sizes of the class's defaults."""
    part = part_of(folder, name)
    kind = read_config(part).get("model_type")
    with loading(part):
        import transformers

        model_class = getattr(transformers, class_name)
        wanted = model_class.config_class.model_type
        if kind not in (wanted, wanted.split("_")[0]):
            raise ValueError(f"it is of the type {kind}, not {wanted}")
        model = model_class.from_pretrained(
            str(part),
            local_files_only=True,
            use_safetensors=True,
            variant=variant_of(part, TRANSFORMERS),
            dtype=dtype,
        )
    return model.to(device).eval().requires_grad_(False)


def load_image_processor(folder: Path, name: str) -> Any:
    part = part_of(folder, name)
    with loading(part):
        import transformers

        return transformers.CLIPImageProcessor.from_pretrained(str(part), local_files_only=True)


def read_config(part: Path, file: str = "config.json") -> dict[str, Any]:
    """Raises VdsgenError where there is no such JSON object."""
    try:
        content = json.loads((part / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise VdsgenError(
            f"{part / file} cannot be read: {error}", remedy="copy the pipeline again"
        ) from error
    if not isinstance(content, dict):
        raise VdsgenError(f"{part / file} is no JSON object", remedy="copy the pipeline again")
    return content


@contextmanager
def loading(part: Path) -> Iterator[None]:
    """Whatever the libraries say about a folder becomes one line."""
    try:
        yield
    except ImportError as error:
        raise VdsgenError(
            f"encoders need the packages transformers and diffusers ({error})",
            remedy="pip install 'vdsgen[pretrained]'",
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise VdsgenError(
            f"{part} cannot be loaded: {words}",
            remedy="it must be what diffusers or transformers saved there, with safetensors weights",
        ) from error


def identity_of(part: Path) -> str:
    """Hexadecimal SHA-256 over the names and contents of a part's files; of weights, whose files are large,
    over their sizes, heads, tails and blocks in between. Changes in few bytes of weights may escape it."""
    digest = hashlib.sha256()
    for file in sorted(path for path in part.iterdir() if path.is_file()):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(_sampled(file) if file.suffix == ".safetensors" else file.read_bytes())
    return digest.hexdigest()


def _sampled(file: Path) -> bytes:
    size = file.stat().st_size
    if size <= 2 * _ENDS_BYTES + _BLOCKS * _BLOCK_BYTES:
        return file.read_bytes()
    parts = []
    with file.open("rb") as stream:
        parts.append(stream.read(_ENDS_BYTES))
        for block in range(_BLOCKS):
            stream.seek(_ENDS_BYTES + (size - 2 * _ENDS_BYTES) * block // _BLOCKS)
            parts.append(stream.read(_BLOCK_BYTES))
        stream.seek(size - _ENDS_BYTES)
        parts.append(stream.read())
    return b"".join(parts)
