"""Lints one config: its form, its keys and values, and the rules."""

from __future__ import annotations

from pathlib import Path

from vdsgen.errors import InputError, Problem
from vdsgen.review.lint.context import Context
from vdsgen.review.lint.data_efficiency import incomplete_parts
from vdsgen.review.lint.document import Document, Looseness
from vdsgen.review.lint.facts import facts_of
from vdsgen.review.lint.finding import Finding, Linted, finding_at
from vdsgen.review.lint.keys import Values, Walk
from vdsgen.review.lint.reader import read_document
from vdsgen.review.lint.rules import rule_findings
from vdsgen.review.lint.secrets import secrets_in


def lint(content: bytes, file: str, context: Context) -> Linted:
    """Raises InputError with line and column where the content is no config at all."""
    return examined(read_document(content, file), context)[0]


def examined(document: Document, context: Context) -> tuple[Linted, Values]:
    """What is wrong with a config, and the values that the engine works with."""
    walk = Walk(
        document,
        auto_filled=context.auto_filled,
        our_trainer=context.plan is not None,
        is_pipeline=context.is_pipeline is True,
    )
    walk.run()
    rules = rule_findings(document, facts_of(walk.values, context), context)
    found = [*_loose(document), *walk.findings, *rules, *incomplete_parts(document, walk.values)]
    found += secrets_in(document)
    if context.plan is not None and context.plan_folder is not None:
        from vdsgen.review.lint.planned import departures, planned_sections

        found += departures(document, planned_sections(context.plan, context.plan_folder))
    ordered = sorted(found, key=lambda finding: (finding.place, finding.level != "error"))
    return Linted(document, tuple(ordered)), walk.values


def read_file(path: Path) -> bytes:
    """Raises InputError where the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = "name a DeepSpeed JSON" if not path.exists() or path.is_dir() else None
        problem = Problem(f"cannot be read: {error.strerror}", str(path), remedy=remedy)
        raise InputError([problem]) from error


def _loose(document: Document) -> list[Finding]:
    """One finding for each kind of thing that is no JSON, at its first place."""
    first: dict[str, Looseness] = {}
    for loose in document.loose:
        first.setdefault(loose.what, loose)
    return [
        finding_at(
            document, (), "no-strict-json", "warning",
            f"{loose.what}: DeepSpeed reads the file as Hjson and takes it; Transformers, Accelerate and "
            "Python's json refuse it",
            remedy="write plain JSON", source="runtime/config.py:430",
        )._replace(place=document.place(loose.offset))
        for loose in first.values()
    ]  # fmt: skip
