"""Folders of encoded clips, their manifests and shards, and the captions beside clips."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from typing import Any

from tests.campaigns.fuzzing.case import Argv, Case
from tests.campaigns.fuzzing.inputs.engine_config import odd_json
from tests.campaigns.fuzzing.trees import changed, damaged
from tests.campaigns.fuzzing.values import text

KEYS = ("bytes", "sha256", "entries", "format", "version", "dtype", "shape", "data_offsets", "__metadata__")


@cache
def _shard() -> tuple[bytes, dict[str, Any]]:
    import tempfile
    from pathlib import Path

    import torch

    from vdsgen.model.cache.shards import write_shard

    with tempfile.TemporaryDirectory() as folder:
        manifest = write_shard(Path(folder), {"k": {"latents": torch.arange(8.0)}}, {"k": "a.mp4"})
        content = (Path(folder) / f"{manifest.name}.safetensors").read_bytes()
        return content, json.loads((Path(folder) / f"{manifest.name}.json").read_bytes())


def case(rng: random.Random) -> Case:
    content, manifest = _shard()
    shard = content
    how = rng.random()
    if how < 0.5:
        shard = damaged(rng, content)
    elif how < 0.7:
        shard = _other_header(rng, content)
    files = {
        "cache/cache.json": _json(rng, {"format": "vdsgen latent cache", "version": 1}, 0.15),
        "cache/shards/s.safetensors": shard,
        "cache/shards/s.json": _json(rng, {**manifest, "bytes": len(shard)}, 0.5),
        "cache/files.txt": rng.choice((b"", b"x\n", rng.randbytes(50), text(rng).encode("utf-8", "replace"))),
        "clips/a.txt": rng.choice((b"", b"\xff\xfe", b"\x00" * 9, b"a" * 100_000, text(rng).encode("utf-8", "replace"), rng.randbytes(99))),
    }  # fmt: skip
    commands: list[Argv] = [("@cache", "cache"), ("@caption", "clips/a.mp4")]
    return Case(kind="cache, captions", files=files, commands=tuple(commands), named=("cache", "a.txt"))


def _other_header(rng: random.Random, content: bytes) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    written = json.dumps(changed(rng, header, KEYS, gentle=False)).encode()
    stream = io.BytesIO()
    stream.write(
        rng.choice((len(written), len(written), 2**63, 2**64 - 1, 0, len(written) + 1)).to_bytes(8, "little")
    )
    stream.write(written + content[8 + length :])
    return stream.getvalue()


def _json(rng: random.Random, tree: dict[str, Any], odds: float) -> bytes:
    if rng.random() > odds:
        return json.dumps(tree).encode()
    how = rng.random()
    if how < 0.6:
        return json.dumps(changed(rng, tree, KEYS, gentle=False)).encode()
    return (
        damaged(rng, json.dumps(tree).encode())
        if how < 0.85
        else odd_json(rng).encode("utf-8", "surrogatepass")
    )
