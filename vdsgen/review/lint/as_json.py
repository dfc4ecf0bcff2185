"""Findings for programs: one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vdsgen import __version__
from vdsgen.catalog.engine_keys import engine_data
from vdsgen.review.lint.finding import Finding, Linted


def as_document(files: Sequence[Linted]) -> dict[str, Any]:
    """What `--json` prints. Lines and columns count from 1."""
    return {
        "generator": f"vdsgen {__version__}",
        "deepspeed": engine_data()["deepspeed"],
        "files": [
            {
                "file": linted.document.file,
                "errors": linted.count("error"),
                "warnings": linted.count("warning"),
                "notes": linted.count("note"),
                "findings": [_finding(finding) for finding in linted.findings],
            }
            for linted in files
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "level": finding.level,
        "message": finding.message,
        "line": finding.place.line,
        "column": finding.place.column,
        "length": finding.place.length,
        "pointer": finding.pointer,
        "remedy": finding.remedy,
        "source": finding.source,
        "fix": [dict(operation) for operation in finding.fix],
    }
