"""The engine refuses what rules say it does, and does what they say with the rest; sources hold what they are
about."""

from __future__ import annotations

import json
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.forks.start import start
from tests.rules.engine_cases import ACCEPTED, NOT_REFUSED_HERE, NOT_TAKEN_HERE, REFUSED, TAKEN, Case
from tests.rules.source_texts import TEXTS
from vdsgen.rules.registry import all_rules, rule
from vdsgen.rules.rule import Rule

NEAR = 3
"""Lines around a source line in which its text must be."""


def outcomes(cases: list[Case]) -> list[dict[str, Any]]:
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as log:
        probe = start("tests.rules.engine_probe", stdin=json.dumps(cases), stdout=output, stderr=log)
        try:
            code = probe.wait(400)
        finally:
            probe.kill()
        output.seek(0)
        log.seek(0)
        assert code == 0, log.read()[-4000:]
        found: list[dict[str, Any]] = json.load(output)
    return found


@pytest.mark.slow
def test_the_engine_does_what_rules_say() -> None:
    refused = [(rule_id, case) for rule_id, cases in REFUSED.items() for case in cases]
    taken = [case for case, _ in TAKEN.values()]
    found = outcomes([case for _, case in refused] + taken + ACCEPTED)
    wrong = []
    for (rule_id, case), outcome in zip(refused, found, strict=False):
        message = rule(rule_id).engine_message or ""
        if outcome["error"] is None or message not in outcome["error"]:
            wrong.append((rule_id, case, outcome))
    for (rule_id, (case, expected)), outcome in zip(TAKEN.items(), found[len(refused) :], strict=False):
        if outcome != {"error": None, "reads": expected}:
            wrong.append((rule_id, case, outcome))
    assert wrong == []
    for case, outcome in zip(ACCEPTED, found[len(refused) + len(taken) :], strict=True):
        assert outcome["error"] is None, (case, outcome)


def test_every_rule_of_the_engines_has_a_case_or_a_reason() -> None:
    refused = {rule.id for rule in all_rules() if rule.severity == "refused"}
    assert set(REFUSED) | set(NOT_REFUSED_HERE) == refused
    assert not set(REFUSED) & set(NOT_REFUSED_HERE)
    taken = {rule.id for rule in all_rules() if rule.severity in ("ignored", "overridden")}
    hurts = {rule.id for rule in all_rules() if rule.severity == "hurts"}
    assert (set(TAKEN) | set(NOT_TAKEN_HERE)) - hurts == taken
    assert not set(TAKEN) & set(NOT_TAKEN_HERE)


def source_lines(one: Rule) -> str | None:
    """The lines that a rule names, and a few around them; None where they are of this project."""
    found = re.fullmatch(r"([a-z0-9_/]+\.py):(\d+)(?:-(\d+))?", one.source)
    if found is None:
        return None
    spec = find_spec("deepspeed")
    assert spec is not None and spec.origin is not None
    lines = (Path(spec.origin).parent / found[1]).read_text().splitlines()
    first, last = int(found[2]), int(found[3] or found[2])
    return "\n".join(lines[max(0, first - 1 - NEAR) : last + NEAR])


@pytest.mark.parametrize("one", all_rules(), ids=lambda one: one.id)
def test_source_lines_hold_what_rules_are_about(one: Rule) -> None:
    """A release of DeepSpeed that moves them fails here, and the rule is read again."""
    lines = source_lines(one)
    if lines is None:
        project = Path(__file__).parents[2]
        assert (project / one.source.partition(",")[0]).exists()
        return
    assert TEXTS.get(one.id, one.engine_message or "") in lines
    assert one.id in TEXTS or one.engine_message is not None


def test_texts_are_of_rules() -> None:
    assert set(TEXTS) <= {rule.id for rule in all_rules()}
