from __future__ import annotations

import json
from pathlib import Path

import pytest

from vdsgen.spec.export_schemas import FOLDER, schema_files


@pytest.mark.parametrize("name", sorted(schema_files()))
def test_published_schemas_are_fresh(name: str) -> None:
    written = (FOLDER / name).read_bytes()
    assert written == schema_files()[name], "stale: run `python -m vdsgen.spec.export_schemas`"


def test_nothing_else_is_published() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(schema_files())


def test_schemas_describe_their_keys_and_refuse_others() -> None:
    schema = json.loads(schema_files()["experiment.schema.json"])
    assert schema["additionalProperties"] is False
    training = schema["$defs"]["Training"]
    assert training["required"] == ["global_batch_size", "steps"]
    assert "Clips" in training["properties"]["global_batch_size"]["description"]


def test_exporting_twice_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vdsgen.spec import export_schemas

    monkeypatch.setattr(export_schemas, "FOLDER", tmp_path / "schemas")
    export_schemas.main()
    first = {path.name: path.read_bytes() for path in (tmp_path / "schemas").iterdir()}
    export_schemas.main()
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "schemas").iterdir()}
    assert first == schema_files()
