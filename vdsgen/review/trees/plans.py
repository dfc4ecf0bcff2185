"""Each plan once: directories with equal inputs share it; different ones are planned at the same time."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from vdsgen.errors import VdsgenError
from vdsgen.review.check import Replan, rendered
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Pool
from vdsgen.spec.plan import Plan

Key = tuple[str, str]
Outcome = Plan | VdsgenError
WORTH_A_PROCESS = 4
"""Plans; fewer are made here, one after the other."""


class Plans:
    """A planner that remembers."""

    def __init__(self, replan: Replan) -> None:
        self._replan = replan
        self._made: dict[Key, Outcome] = {}

    def __call__(self, experiment: Experiment, pool: Pool) -> Plan:
        """Raises what planning raised."""
        key = _key(experiment, pool)
        if key not in self._made:
            self._made[key] = _outcome(self._replan, experiment, pool)
        made = self._made[key]
        if isinstance(made, VdsgenError):
            raise made
        return made

    def make(self, inputs: Iterable[tuple[Experiment, Pool]], progress: Callable[[float], None]) -> None:
        """All of these, on as many cores as there are; `progress` hears which share is done."""
        missing = {_key(*one): one for one in inputs}
        for key in self._made:
            missing.pop(key, None)
        workers = min(_cores(), len(missing))
        if workers < 2 or len(missing) < WORTH_A_PROCESS or threading.active_count() > 1:
            for done, (key, one) in enumerate(missing.items(), start=1):
                self._made[key] = _outcome(self._replan, *one)
                progress(done / len(missing))
            return
        # Forked: what is imported and read by now is there already, and `_replan` needs no name of its own.
        global _in_workers  # noqa: PLW0603
        _in_workers = self._replan
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            outcomes = executor.map(_outcome_in_worker, missing.values())
            for done, (key, outcome) in enumerate(zip(missing, outcomes, strict=True), start=1):
                self._made[key] = outcome
                progress(done / len(missing))


class Renders:
    """A renderer that remembers."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Mapping[str, bytes]] = {}

    def __call__(
        self, plan: Plan, experiment: Experiment, template_dir: Path | None, also: Sequence[str]
    ) -> Mapping[str, bytes]:
        """Raises what rendering raises."""
        key = (sha256_of(plan), sha256_of(experiment), template_dir, tuple(also))
        if key not in self._made:
            self._made[key] = rendered(plan, experiment, template_dir, also)
        return self._made[key]


_in_workers: Replan | None = None


def _outcome_in_worker(inputs: tuple[Experiment, Pool]) -> Outcome:
    assert _in_workers is not None, "set before the workers were forked"
    return _outcome(_in_workers, *inputs)


def _outcome(replan: Replan, experiment: Experiment, pool: Pool) -> Outcome:
    try:
        return replan(experiment, pool)
    except VdsgenError as error:
        return error


def _key(experiment: Experiment, pool: Pool) -> Key:
    return sha256_of(experiment), sha256_of(pool)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
