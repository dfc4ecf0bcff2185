"""Cases in processes of their own, watched: one that hangs or dies takes no other with it."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.campaigns.fuzzing.case import Case
from tests.campaigns.fuzzing.check import Outcome, check, limit_memory
from tests.campaigns.fuzzing.inputs import make_case
from tests.campaigns.fuzzing.sandbox import Sandbox
from tests.campaigns.fuzzing.scripts import make_stand_ins
from tests.campaigns.fuzzing.tracing import REAL_ONE_IN, trace_really

BATCH = 100
"""Cases a process: what one leaves behind in memory does not add up."""
SILENCE_SECONDS = 1800.0
"""Longer than any limit within the process lets a case take, however busy the machine is."""
Answer = dict[str, Any]


def run_cases(seed: int, first: int, last: int, *, until: float = float("inf")) -> Iterator[Answer]:
    """An answer a case, in order; `until` is a time.monotonic() after which no batch begins."""
    number = first
    with tempfile.TemporaryDirectory(prefix="fuzz-cache-") as cache:
        while number < last and time.monotonic() < until:
            numbers = range(number, min(number + BATCH, last))
            for answer in _batch(numbers, lambda one: make_case(seed, one), Path(cache)):
                yield answer
                number = answer["number"] + 1


def run_given(cases: Sequence[Case]) -> Iterator[Answer]:
    """The same of cases that are there."""
    number = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-cache-") as cache:
        while number < len(cases):
            for answer in _batch(range(number, len(cases)), cases.__getitem__, Path(cache)):
                yield answer
                number = answer["number"] + 1


def _batch(numbers: range, case_of: Callable[[int], Case], cache: Path) -> Iterator[Answer]:
    """Ends with the first that the process does not survive."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            _work(numbers, case_of, cache, writing)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    number = numbers.start
    with os.fdopen(reading, "rb") as stream:
        for line in _lines(stream, lambda: os.kill(pid, signal.SIGKILL)):
            answer: Answer = json.loads(line)
            number = answer["number"] + 1
            yield answer
    _, status = os.waitpid(pid, 0)
    if number < numbers.stop:
        signalled = os.WIFSIGNALED(status)
        ended = f"signal {os.WTERMSIG(status)}" if signalled else f"code {os.WEXITSTATUS(status)}"
        yield _answer(number, case_of(number).kind, Outcome([f"the process died: {ended}"]))


def _answer(number: int, kind: str, outcome: Outcome) -> Answer:
    return {"number": number, "kind": kind, **dataclasses.asdict(outcome)}


def _lines(stream: Any, kill: Callable[[], None]) -> Iterator[bytes]:
    """Kills who says nothing for too long."""
    while True:
        if not select.select([stream], [], [], SILENCE_SECONDS)[0]:
            kill()
        line = stream.readline()
        if not line:
            return
        yield line


def _work(numbers: range, case_of: Callable[[int], Case], cache: Path, writing: int) -> None:
    limit_memory()
    os.fsync = lambda fd: None  # a lost power supply is no matter here, and waiting for a disk takes long
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as folder,
        os.fdopen(writing, "w", buffering=1) as answers,
    ):
        root = Path(folder)
        make_stand_ins(root / "programs")
        (root / "sandbox").mkdir()
        sandbox = Sandbox(root / "sandbox", cache)
        for number in numbers:
            case = case_of(number)
            trace_really(number % REAL_ONE_IN == 0)
            outcome = check(case, sandbox, root / "programs")
            answers.write(json.dumps(_answer(number, case.kind, outcome)) + "\n")
        os.chdir("/")
