"""SARIF as its standard has it: OASIS SARIF 2.1.0, the objects and properties that lint writes."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.review.lint.lints import GOOD, linted, with_changes
from vdsgen.review.lint.checks import all_checks
from vdsgen.review.lint.sarif import as_sarif

TEXT, COUNT = "text", "count"
REGION = {
    "startLine": COUNT,
    "startColumn": COUNT,
    "endLine": COUNT,
    "endColumn": COUNT,
    "snippet": {"text": TEXT},
}
ARTIFACT = {"uri": TEXT}
SCHEMA: dict[str, Any] = {
    "$schema": TEXT,
    "version": "2.1.0",
    "runs": [
        {
            "columnKind": "unicodeCodePoints",
            "tool": {
                "driver": {
                    "name": TEXT,
                    "version": TEXT,
                    "rules": [
                        {
                            "id": TEXT,
                            "shortDescription": {"text": TEXT},
                            "help": {"text": TEXT},
                            "defaultConfiguration": {"level": "level"},
                            "properties": "bag",
                        }
                    ],
                }
            },
            "results": [
                {
                    "ruleId": TEXT,
                    "ruleIndex": "index",
                    "level": "level",
                    "message": {"text": TEXT},
                    "locations": [{"physicalLocation": {"artifactLocation": ARTIFACT, "region": REGION}}],
                    "properties": "bag",
                    "fixes": [
                        {
                            "description": {"text": TEXT},
                            "artifactChanges": [
                                {
                                    "artifactLocation": ARTIFACT,
                                    "replacements": [
                                        {"deletedRegion": REGION, "insertedContent": {"text": "any text"}}
                                    ],
                                }
                            ],
                        }
                    ],
                }
            ],
        }
    ],
}
"""Those of the standard's properties that lint uses: nothing else may stand in a log (each object of the
published schema has additionalProperties: false)."""
REQUIRED = {
    "version", "runs", "tool", "driver", "name", "id", "message", "text", "artifactChanges", "replacements",
    "deletedRegion", "artifactLocation",
}  # fmt: skip
"""Properties that the schema requires of the object they are in."""


def check(value: Any, schema: Any, path: str = "") -> None:
    if isinstance(schema, list):
        assert isinstance(value, list), path
        for item in value:
            check(item, schema[0], f"{path}[]")
    elif isinstance(schema, dict):
        assert isinstance(value, dict), path
        assert set(value) <= set(schema), (path, set(value) - set(schema))
        assert REQUIRED & set(schema) <= set(value) | {"text", "help"}, (path, value)
        for key, inner in value.items():
            check(inner, schema[key], f"{path}.{key}")
    elif schema == TEXT:
        assert isinstance(value, str) and value, path
    elif schema == "any text":
        assert isinstance(value, str), path
    elif schema in (COUNT, "index"):
        assert isinstance(value, int) and value >= (schema == COUNT), (path, value)
    elif schema == "level":
        assert value in ("none", "note", "warning", "error"), path
    elif schema == "bag":
        assert isinstance(value, dict), path
    else:
        assert value == schema, path


def test_a_log_is_as_the_standard_has_it() -> None:
    changes = {"/amp": {}, "/gradient_cliping": 1, "/zero_optimization/reduce_bucket_size": "5e8", "/fp16": 3}
    log = as_sarif([linted(with_changes(changes)), linted(GOOD)])
    check(json.loads(json.dumps(log)), SCHEMA)
    run = log["runs"][0]
    assert len(run["results"]) >= 4
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


def test_a_fix_s_replacement_is_the_repair() -> None:
    before = linted(with_changes({"/amp": {}}))
    [result] = as_sarif([before])["runs"][0]["results"]
    [replacement] = result["fixes"][0]["artifactChanges"][0]["replacements"]
    region, document = replacement["deletedRegion"], before.document
    start = document.line_starts[region["startLine"] - 1] + region["startColumn"] - 1
    end = document.line_starts[region["endLine"] - 1] + region["endColumn"] - 1
    after = document.text[:start] + replacement["insertedContent"]["text"] + document.text[end:]
    assert json.loads(after) == GOOD


def test_ids_are_words_and_each_is_there_once() -> None:
    ids = [one.id for one in all_checks()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one) for one in ids)
