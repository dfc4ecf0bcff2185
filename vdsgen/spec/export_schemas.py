"""The published JSON Schemas, from the specs. Write them anew with `python -m vdsgen.spec.export_schemas`."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Lab
from vdsgen.spec.manifest import Manifest
from vdsgen.spec.plan import Plan

FOLDER = Path(__file__).parent / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""What pydantic writes."""
PUBLISHED: dict[str, type[BaseModel]] = {
    "lab": Lab,
    "experiment": Experiment,
    "plan": Plan,
    "manifest": Manifest,
}


def schema_files() -> dict[str, bytes]:
    """File name -> content, the same bytes every time."""
    return {f"{name}.schema.json": _schema(model) for name, model in PUBLISHED.items()}


def _schema(model: type[BaseModel]) -> bytes:
    schema = {"$schema": DIALECT, **model.model_json_schema()}
    return (json.dumps(schema, indent=2, ensure_ascii=False) + "\n").encode()


def main() -> None:
    """Writes the files beside the specs."""
    FOLDER.mkdir(exist_ok=True)
    for name, content in schema_files().items():
        (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    main()
