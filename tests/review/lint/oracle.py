"""Judging many configs by DeepSpeed: one worker a world size, each answering line by line."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tests.forks.start import start

OBSTACLES: Mapping[str, str] = {
    "no CUDA kernel": r"FusedLamb|fused_lamb|FusedLion|fused_lion|only supported for CUDA"
    r"|NotImplementedBuilder|not been implemented on CPU"
    r"|CUDA_HOME|does not have an accelerator|SuperOffload|[Tt]orch not compiled with CUDA"
    r"|Cannot access accelerator device when none is available",
    "a package that is not installed": r"No module named|Please install DataStates|wandb|comet_ml"
    r"|Install mup|MuAdam|MuSGD",
    "no NVMe library": r"async_io|libaio|Unable to JIT load the async|aio_handle|AsyncIO",
    "an operator that has to be compiled": r"operators are not compiled here|failed to build/load",
    "a model that AutoTP does not know": r"Not able to determine model policy",
}
"""Why this machine cannot judge a config: kernels, packages and disks that it lacks."""


class Case(NamedTuple):
    """A config and how it is started."""

    text: str
    world_size: int
    stages: int
    """Of a PipelineModule; 0 for none."""
    client_optimizer: bool
    """Whether the training code brings an optimizer: where the config names none."""
    origin: str
    """How it came about, for reports."""


class Outcome(NamedTuple):
    """What DeepSpeed did with a case."""

    error: str | None
    phase: str = ""
    frame: str = ""

    @property
    def accepted(self) -> bool:
        return self.error is None

    @property
    def obstacle(self) -> str | None:
        """Why this machine could not judge it, if it could not."""
        if self.error is None:
            return None
        if self.phase == "hang":
            return "no answer in time"
        return next((why for why, words in OBSTACLES.items() if re.search(words, self.error)), None)


def judged(cases: Sequence[Case], *, compiled: bool = False) -> list[Outcome]:
    """The outcomes, in the order of the cases. `compiled`: with DeepSpeed's own operators, whose first build
    takes minutes. Raises RuntimeError where a worker dies."""
    sizes = sorted({case.world_size for case in cases})
    outcomes: dict[int, Outcome] = {}
    with ThreadPoolExecutor(len(sizes) or 1) as pool:
        by_size = {
            size: [number for number, case in enumerate(cases) if case.world_size == size] for size in sizes
        }
        runs = {size: pool.submit(_run, size, [cases[n] for n in by_size[size]], compiled) for size in sizes}
        for size, run in runs.items():
            outcomes.update(zip(by_size[size], run.result(), strict=True))
    return [outcomes[number] for number in range(len(cases))]


def _run(world_size: int, cases: Iterable[Case], compiled: bool) -> list[Outcome]:
    lines = "".join(json.dumps({**case._asdict(), "origin": ""}) + "\n" for case in cases)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    options = [str(world_size), *(["--compile"] if compiled else [])]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as log:
        worker = start(
            "tests.review.lint.oracle_worker", *options,
            environment={"PATH": path}, stdin=lines, stdout=output, stderr=log,
        )  # fmt: skip
        code = worker.wait()
        log.seek(0)
        output.seek(0)
        if code != 0:
            raise RuntimeError(f"the oracle ended with {code}:\n{log.read()[-4000:]}")
        return list(_outcomes(output.read()))


def _outcomes(text: str) -> Iterator[Outcome]:
    for line in text.splitlines():
        answer: dict[str, Any] | None = json.loads(line)
        yield Outcome(None) if answer is None else Outcome(answer["error"], answer["phase"], answer["frame"])
