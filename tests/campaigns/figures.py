"""What a campaign measured: kept as committed JSON, read by the page that tells it."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vdsgen.files import write_atomically

FOLDER = Path(__file__).parents[2] / "docs" / "measured" / "reliability"
REVIEWS = FOLDER.with_name("reviews")
"""What reviews of changes are held against."""


def write(campaign: str, command: str, figures: dict[str, Any], folder: Path = FOLDER) -> None:
    """`command`: as somebody would type it to measure the same again."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"command": command, "machine": _machine(), "figures": figures}
    write_atomically(folder / f"{campaign}.json", (json.dumps(document, indent=2) + "\n").encode())


def read(campaign: str, folder: Path = FOLDER) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / f"{campaign}.json").read_bytes())
    return document


def _machine() -> dict[str, Any]:
    return {
        "processors": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "deepspeed": version("deepspeed"),
    }
