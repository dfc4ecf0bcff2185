"""Lint against DeepSpeed on the same configs: who accepts, who refuses, and where they differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tests.review.lint.oracle import Case, Outcome
from vdsgen.errors import InputError
from vdsgen.review.lint.context import Context
from vdsgen.review.lint.run import lint
from vdsgen.rules.registry import rule


class Verdict(NamedTuple):
    """A case, what DeepSpeed did, and lint's errors."""

    case: Case
    outcome: Outcome
    errors: tuple[str, ...]
    """`check: message`; one `not read` where lint could not read it."""

    @property
    def false_accept(self) -> bool:
        """DeepSpeed refuses, and lint has no error to name."""
        return not self.outcome.accepted and self.outcome.obstacle is None and not self.errors

    @property
    def false_alarm(self) -> bool:
        """DeepSpeed accepts, and lint has an error."""
        return self.outcome.accepted and bool(self.errors)

    @property
    def explained(self) -> bool:
        """Whether one of lint's errors is what DeepSpeed says."""
        return any(_says_the_same(error.partition(":")[0], self.outcome.error or "") for error in self.errors)


OWN_WORDS = {
    "unknown-key": "Extra inputs are not permitted",
    "key-named-twice": "Extra inputs are not permitted",
    "duplicate-key": "Duplicate keys",
    "wrong-type": "validation error|ZeroDivision|TypeError|ValueError|AttributeError|AssertionError"
    "|ConfigError|KeyError",
    "auto-as-text": "TypeError|ValueError|AttributeError|ConfigError",
    "data-efficiency-incomplete": "must be specified|KeyError",
    "not read": "Hjson|Unicode|Duplicate|Index|Overflow|ValueError|AttributeError|TypeError|digits|Recursion",
}
"""What DeepSpeed says where lint's own checks find an error."""


def _says_the_same(check: str, said: str) -> bool:
    words = OWN_WORDS.get(check)
    if words is not None:
        return re.search(words, said) is not None
    expected = rule(check).engine_message
    return expected is None or expected.lower() in said.lower()


def lint_errors(case: Case) -> tuple[str, ...]:
    context = Context(
        world_size=case.world_size, pipeline_stages=case.stages, accelerator="cpu",
        client_optimizer=case.client_optimizer, client_scheduler=False,
    )  # fmt: skip
    try:
        linted = lint(case.text.encode("utf-8", "surrogatepass"), "config.json", context)
    except InputError as error:
        return (f"not read: {error.problems[0].message}",)
    return tuple(f"{f.check}: {f.message}" for f in linted.findings if f.level == "error")


def verdicts(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[Verdict]:
    return [Verdict(case, outcome, lint_errors(case)) for case, outcome in zip(cases, outcomes, strict=True)]
