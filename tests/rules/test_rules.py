"""Rules: each rejects what it says, with the values, and says what it is about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.rules.broken import BROKEN, GOOD, changed
from vdsgen.rules.facts import GROUPS, Facts
from vdsgen.rules.markdown import rules_markdown
from vdsgen.rules.registry import SUBJECTS, all_rules, forbidding_rules, rule
from vdsgen.rules.rule import REMOVE, Rules, violations


def test_a_good_configuration_breaks_nothing() -> None:
    assert violations(GOOD, all_rules()) == []


def test_unknown_facts_break_nothing() -> None:
    assert violations(Facts(), list(all_rules())) == []


@pytest.mark.parametrize("rule_id", BROKEN)
def test_one_unknown_fact_is_no_violation(rule_id: str) -> None:
    """A rule that is broken with all facts known never raises where some are not."""
    broken = changed(BROKEN[rule_id][0])
    for name in Facts._fields:
        unknown = broken._replace(**{name: Facts._field_defaults[name]})
        assert violations(unknown, list(all_rules())) == violations(unknown, all_rules())
    for group in GROUPS:
        known = getattr(broken, group)
        for name in known._fields:
            violations(broken._replace(**{group: known._replace(**{name: None})}), all_rules())


def test_every_rule_has_a_configuration_that_breaks_it() -> None:
    assert set(BROKEN) == {rule.id for rule in all_rules()}


@pytest.mark.parametrize("rule_id", BROKEN)
def test_rule_names_the_values(rule_id: str) -> None:
    changes, words = BROKEN[rule_id]
    found = {violation.rule.id: violation for violation in violations(changed(changes), all_rules())}
    assert rule_id in found
    assert all(word in found[rule_id].message for word in words), found[rule_id].message
    assert rule(rule_id).remedy in str(found[rule_id])


@pytest.mark.parametrize("rule_id", [rule.id for rule in all_rules() if rule.fix is not None])
def test_fixes_are_about_keys(rule_id: str) -> None:
    facts = changed(BROKEN[rule_id][0])
    fix = rule(rule_id).fix
    assert fix is not None and facts.given is not None
    for pointer, value in fix(facts):
        assert re.fullmatch(r"(/[A-Za-z0-9_]+)+", pointer)
        known = facts.given | (facts.automatic or frozenset())
        assert value is not REMOVE or pointer in known or "/params/" in pointer


def test_needs_are_facts() -> None:
    names = {*GROUPS, "given", "automatic"}
    assert all(set(rule.needs) <= names for rule in all_rules())


def test_ids_are_unique_words() -> None:
    ids = [rule.id for rule in all_rules()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in ids)


SEVERAL_MESSAGES = {"optimizer-param-values", "scheduler-param-values"}
"""Refused in the words of whatever first computes with the value."""


def test_what_is_refused_has_the_engines_words() -> None:
    for one in all_rules():
        speaks = one.engine_message is not None or one.id in SEVERAL_MESSAGES
        assert (one.severity == "refused") == speaks, one.id


def test_plans_may_hurt_but_not_be_refused() -> None:
    assert {rule.severity for rule in forbidding_rules()} == {"refused", "ignored", "overridden", "ours"}
    assert len(forbidding_rules()) == sum(rule.severity != "hurts" for rule in all_rules())


def test_rules_keep_their_order() -> None:
    rules = Rules(all_rules())
    assert rules.known(GOOD) == tuple(all_rules())
    assert [rule for rules in SUBJECTS.values() for rule in rules] == list(all_rules())


def test_docs_are_fresh() -> None:
    assert (Path(__file__).parents[2] / "docs" / "rules.md").read_text() == rules_markdown()
