"""Findings as SARIF 2.1.0, which code review tools show beside the line.

OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0", sections 3.13-3.58.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vdsgen import __version__
from vdsgen.review.lint.checks import Check, all_checks
from vdsgen.review.lint.document import Document
from vdsgen.review.lint.finding import Finding, Linted
from vdsgen.review.lint.patch import PatchError, patched

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def as_sarif(files: Sequence[Linted]) -> dict[str, Any]:
    """One log of one run; every check is described, in a fixed order."""
    checks = all_checks()
    numbers = {check.id: number for number, check in enumerate(checks)}
    for linted in files:
        for finding in linted.findings:
            assert finding.check in numbers, f"{finding.check} is described nowhere"
    driver = {
        "name": "vdsgen lint",
        "version": __version__,
        "rules": [_rule(check) for check in checks],
    }
    results = [_result(linted, finding, numbers) for linted in files for finding in linted.findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(check: Check) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": check.id,
        "shortDescription": {"text": check.summary},
        "defaultConfiguration": {"level": check.level},
    }
    if check.remedy is not None:
        rule["help"] = {"text": check.remedy}
    if check.source is not None:
        rule["properties"] = {"source": check.source}
    return rule


def _result(linted: Linted, finding: Finding, numbers: dict[str, int]) -> dict[str, Any]:
    document, place = linted.document, finding.place
    text = finding.message if finding.remedy is None else f"{finding.message}; {finding.remedy}"
    region = {
        "startLine": place.line,
        "startColumn": place.column,
        "endColumn": place.column + place.length,
        "snippet": {"text": document.line(place.line)},
    }
    artifact = {"uri": _uri(document.file)}
    result: dict[str, Any] = {
        "ruleId": finding.check,
        "ruleIndex": numbers[finding.check],
        "level": finding.level,
        "message": {"text": text},
        "locations": [{"physicalLocation": {"artifactLocation": artifact, "region": region}}],
        "properties": {"pointer": finding.pointer, "source": finding.source},
    }
    replacement = _replacement(document, finding) if finding.fix else None
    if replacement is not None:
        change = {"artifactLocation": artifact, "replacements": [replacement]}
        description = {"text": finding.remedy or "take it out"}
        result["fixes"] = [{"description": description, "artifactChanges": [change]}]
    return result


def _replacement(document: Document, finding: Finding) -> dict[str, Any] | None:
    """The stretch of text that the fix changes, and what it becomes; None where the fix does not fit."""
    try:
        after = patched(document, finding.fix).text
    except PatchError:
        return None
    before = document.text
    shorter = min(len(before), len(after))
    start = next((n for n in range(shorter) if before[n] != after[n]), shorter)
    same = next(
        (n for n in range(shorter - start) if before[len(before) - 1 - n] != after[len(after) - 1 - n]),
        shorter - start,
    )
    first, last = document.place(start), document.place(len(before) - same)
    region = {
        "startLine": first.line,
        "startColumn": first.column,
        "endLine": last.line,
        "endColumn": last.column,
    }
    return {"deletedRegion": region, "insertedContent": {"text": after[start : len(after) - same]}}


def _uri(file: str) -> str:
    from urllib.parse import quote

    return quote(file.replace("\\", "/"), safe="/")
