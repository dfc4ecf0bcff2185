"""Cases in processes of their own, watched: one that hangs or dies takes no other with it."""

from __future__ import annotations

import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.campaigns.fuzzing.check import check, limit_memory
from tests.campaigns.fuzzing.inputs import make_case
from tests.campaigns.fuzzing.sandbox import Sandbox
from tests.campaigns.fuzzing.scripts import make_stand_ins
from tests.campaigns.fuzzing.tracing import REAL_ONE_IN, trace_really

BATCH = 250
"""Cases a process: what one leaves behind in memory does not add up."""
SILENCE_SECONDS = 1800.0
"""Longer than any limit within the process lets a case take, however busy the machine is."""
Answer = dict[str, Any]


def run_cases(seed: int, first: int, last: int, *, until: float = float("inf")) -> Iterator[Answer]:
    """An answer a case, in order; `until` is a time.monotonic() after which no batch begins."""
    number = first
    with tempfile.TemporaryDirectory(prefix="fuzz-cache-") as cache:
        while number < last and time.monotonic() < until:
            for answer in _batch(seed, number, min(number + BATCH, last), Path(cache)):
                yield answer
                number = answer["number"] + 1


def _batch(seed: int, first: int, last: int, cache: Path) -> Iterator[Answer]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            _work(seed, first, last, cache, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    number = first
    with os.fdopen(reading, "rb") as stream:
        for line in _lines(stream, lambda: os.kill(pid, signal.SIGKILL)):
            answer: Answer = json.loads(line)
            number = answer["number"] + 1
            yield answer
    _, status = os.waitpid(pid, 0)
    if number < last:
        ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"code {os.WEXITSTATUS(status)}"
        yield {"number": number, "kind": "?", "problems": [f"the process died: {ended}"], "exit_codes": [], "seconds": 0.0, "scripts": 0, "cut_off": 0}


def _lines(stream: Any, kill: Callable[[], None]) -> Iterator[bytes]:
    """Kills who says nothing for too long."""
    while True:
        if not select.select([stream], [], [], SILENCE_SECONDS)[0]:
            kill()
        line = stream.readline()
        if not line:
            return
        yield line


def _work(seed: int, first: int, last: int, cache: Path, writing: int) -> None:
    limit_memory()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, os.fdopen(writing, "w", buffering=1) as answers:
        root = Path(folder)
        make_stand_ins(root / "programs")
        (root / "sandbox").mkdir()
        sandbox = Sandbox(root / "sandbox", cache)
        for number in range(first, last):
            case = make_case(seed, number)
            trace_really(number % REAL_ONE_IN == 0)
            outcome = check(case, sandbox, root / "programs")
            answers.write(
                json.dumps(
                    {
                        "number": number,
                        "kind": case.kind,
                        "problems": outcome.problems,
                        "exit_codes": outcome.exit_codes,
                        "seconds": outcome.seconds,
                        "scripts": outcome.scripts,
                        "cut_off": outcome.cut_off,
                    }
                )
                + "\n"
            )
        os.chdir("/")
