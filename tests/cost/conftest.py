"""Engines are started once for all tests that look at them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.cost.activation_cases import activation_settings, worker_case
from tests.cost.engine_cases import allowed_settings, case_of, run_ranks


class EngineRun:
    """What ranks of one process group measure, once it is asked for."""

    def __init__(self, ranks: int, folder: Path) -> None:
        self._ranks = ranks
        self._folder = folder

    @cached_property
    def states(self) -> list[list[dict[str, Any]]]:
        """Of every allowed engine mode: by rank, then by `allowed_settings`."""
        return run_ranks(
            self._ranks, [case_of(settings) for settings in allowed_settings(self._ranks)], self._folder
        )

    @cached_property
    def activations(self) -> list[list[dict[str, Any]]]:
        """Of the bundled model in as many stages: by `activation_settings`, then by rank."""
        cases = [worker_case(settings) for settings in activation_settings(self._ranks)]
        return [list(answers) for answers in zip(*run_ranks(self._ranks, cases, self._folder), strict=True)]


EngineRuns = Callable[[int], EngineRun]


@pytest.fixture(scope="session")
def engine_runs(tmp_path_factory: pytest.TempPathFactory) -> EngineRuns:
    """By number of ranks."""

    @cache
    def run(ranks: int) -> EngineRun:
        return EngineRun(ranks, tmp_path_factory.mktemp(f"ranks{ranks}"))

    return run
