"""Lint and DeepSpeed on the same configs: what lint lets through starts, what DeepSpeed refuses lint names.

Larger runs: `python -m tests.benchmarks.lint_differential`.
"""

from __future__ import annotations

import pytest

from tests.review.lint import disagreements
from tests.review.lint.configs import cases
from tests.review.lint.differential import lint_errors, verdicts
from tests.review.lint.oracle import Case, judged

CONFIGS = 120
SEED = 20


@pytest.mark.parametrize("name", disagreements.ONCE_ACCEPTED)
def test_what_lint_once_let_through_is_an_error(name: str) -> None:
    assert lint_errors(disagreements.cases()[name])


@pytest.mark.slow
def test_what_the_first_step_refuses_is_refused() -> None:
    """Also in a pipeline, and with more micro-batches than are worth running."""
    cases = [disagreements.cases()[name] for name in disagreements.FIRST_STEP_REFUSED]
    for verdict in verdicts(cases, judged(cases)):
        assert verdict.outcome.phase == "step", verdict
        assert verdict.explained, verdict


@pytest.mark.parametrize("name", disagreements.ONCE_REFUSED)
def test_what_lint_once_refused_is_none(name: str) -> None:
    assert lint_errors(disagreements.cases()[name]) == ()


@pytest.mark.parametrize("name", disagreements.STILL_REFUSED)
def test_what_lint_refuses_on_purpose(name: str) -> None:
    assert lint_errors(Case(disagreements.STILL_REFUSED[name], 1, 0, True, name))


def test_the_same_seed_gives_the_same_configs() -> None:
    first = [case.text for case in cases(50, 1)]
    assert first == [case.text for case in cases(50, 1)]
    assert first != [case.text for case in cases(50, 2)]


@pytest.mark.slow
def test_lint_and_deepspeed_agree() -> None:
    """Of random configs, and of those that they once differed on."""
    named = list(disagreements.cases().values())
    found = verdicts(chosen := [*named, *cases(CONFIGS, SEED)], judged(chosen))
    assert [verdict for verdict in found if verdict.false_accept] == []
    assert len([verdict for verdict in found if verdict.false_alarm]) <= len(found) // 100
    assert sum(verdict.outcome.accepted for verdict in found) > CONFIGS // 6
    assert sum(bool(verdict.errors) and not verdict.outcome.accepted for verdict in found) > CONFIGS // 4
    assert sum(verdict.outcome.obstacle is not None for verdict in found) < CONFIGS // 2
