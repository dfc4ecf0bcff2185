"""The table of docs/models.md: `python -m tests.benchmarks.verify_families [NAME...]`.

Every weight of a diffusers model in bf16, on two pipeline stages and two data ranks of 80 GB cards, planned
and then traced by `vdsgen verify`, each as a process of its own. NAMEs choose among the models.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import yaml

from tests.benchmarks.verify_table import vdsgen
from tests.update_examples import EXAMPLES
from vdsgen.units import GIB

CLIPS = {
    "cogvideox-2b": (49, 480, 720),
    "cogvideox-5b": (49, 480, 720),
    "cogvideox1.5-5b": (45, 480, 720),
    "ltx-video-2b": (97, 512, 704),
    "hunyuanvideo-13b": (45, 544, 960),
    "wan2.1-i2v-14b": (49, 480, 832),
    "wan2.2-ti2v-5b": (81, 704, 1280),
    "latte-1": (16, 512, 512),
    "svd-xt": (25, 576, 1024),
    "mochi-1-preview": (61, 480, 848),
}
"""Frames, height and width."""


def row(name: str, folder: Path) -> str:
    """The fuller stage's peak, and whether all is within tolerance."""
    frames, height, width = CLIPS[name]
    experiment = {
        "name": "family",
        "model": name,
        "data": {
            "videos": "clips",
            "frames": frames,
            "height": height,
            "width": width,
            "pipeline": "pipeline",
        },
        "training": {"global_batch_size": 8, "steps": 1},
        "constraints": {"pipeline_parallel_size": 2, "data_parallel_size": 2},
    }
    path = folder / "family.yaml"
    path.write_text(yaml.safe_dump(experiment))
    plan = folder / name
    vdsgen("generate", str(path), "--lab", f"{EXAMPLES}/labs/sixteen-80gb.yaml", "--out", str(plan))
    found = json.loads(vdsgen("verify", str(plan), "--json"))
    peaks = [stage["components"]["peak"] for stage in found["stages"]]
    fuller = max(peaks, key=lambda peak: int(peak["planned_bytes"]))
    planned, traced = fuller["planned_bytes"], fuller["traced_bytes"]
    clip = f"{frames} x {height} x {width}"
    return f"| {name} | {clip} | {planned / GIB:.2f} | {traced / GIB:.2f} | {planned / traced:.3f} |"


def main(names: list[str]) -> None:
    print("| model | clip | planned GiB | traced GiB | ratio |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or CLIPS:
            print(row(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
