"""Engines are started once for all tests that look at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.cost.activation_cases import PARTITIONS, activation_settings, worker_case
from tests.cost.engine_cases import allowed_settings, case_of, run_ranks


@dataclass(frozen=True)
class EngineRun:
    """What ranks of one process group measured."""

    states: list[list[dict[str, Any]]]
    """By rank, then by `allowed_settings`."""
    activations: list[list[dict[str, Any]]]
    """By `activation_settings`, then by rank."""


EngineRuns = Callable[[int], EngineRun]


@pytest.fixture(scope="session")
def engine_runs(tmp_path_factory: pytest.TempPathFactory) -> EngineRuns:
    """By number of ranks: every allowed engine mode, and the bundled model in as many stages."""

    @cache
    def run(ranks: int) -> EngineRun:
        states = [case_of(settings) for settings in allowed_settings(ranks)]
        staged = (
            [worker_case(settings) for settings in activation_settings(ranks)] if ranks in PARTITIONS else []
        )
        by_rank = run_ranks(ranks, [*states, *staged], tmp_path_factory.mktemp(f"ranks{ranks}"))
        return EngineRun(
            states=[answers[: len(states)] for answers in by_rank],
            activations=[list(answers) for answers in zip(*(a[len(states) :] for a in by_rank), strict=True)],
        )

    return run
