"""Lint against DeepSpeed on the same configs: who accepts, who refuses, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.review.lint.oracle import Case, Outcome
from vdsgen.errors import InputError
from vdsgen.review.lint.context import Context
from vdsgen.review.lint.run import lint


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


def lint_errors(case: Case) -> tuple[str, ...]:
    context = Context(
        world_size=case.world_size, pipeline_stages=case.stages, accelerator="cpu",
        client_optimizer=False, client_scheduler=False,
    )  # fmt: skip
    try:
        linted = lint(case.text.encode("utf-8", "surrogatepass"), "config.json", context)
    except InputError as error:
        return (f"not read: {error.problems[0].message}",)
    return tuple(f"{f.check}: {f.message}" for f in linted.findings if f.level == "error")


def verdicts(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> list[Verdict]:
    return [Verdict(case, outcome, lint_errors(case)) for case, outcome in zip(cases, outcomes, strict=True)]
