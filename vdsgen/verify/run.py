"""Traces all stages of a rendered directory, several at once, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from vdsgen.errors import VdsgenError
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.canonical import sha256_of
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.rendered import AGAIN, Rendered, read_rendered
from vdsgen.spec.run import Layout
from vdsgen.verify.figures import Row, StageTrace, all_within, compare, fullest
from vdsgen.verify.resident import peak_resident_bytes
from vdsgen.verify.worker import BAD_INPUT

Progress = Callable[[float], None]
"""Called with the share of the work that is done."""
Task = tuple[int, int]
"""A stage, and one of its data ranks."""
NOTES_SHOWN = 5
MODULE = "vdsgen.verify.worker"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
"""Of workers: DeepSpeed picks its device while it is imported, and a GPU that is there is not needed."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What `vdsgen verify` found."""

    rendered: Rendered
    notes: tuple[str, ...]
    """Where the directory's files do not belong together any more."""
    traces: tuple[StageTrace, ...]
    rows: tuple[Row, ...]
    seconds: float
    resident_bytes: int
    """The most real memory that the processes which ran at once can have held together."""

    @property
    def within(self) -> bool:
        return all_within(self.rows)


def verify(directory: Path, stages: Sequence[int], progress: Progress) -> Verification:
    """Traces these stages of the directory's ds_config.json, or all where none is named.

    Raises VdsgenError where the directory cannot be read, does not name these stages, or is refused by the
    engine, and where torch or DeepSpeed is missing.
    """
    began = time.perf_counter()
    rendered = read_rendered(directory)
    _check(rendered, stages)
    chosen = sorted(set(stages)) or list(range(len(rendered.plan.stages)))
    tasks = [(stage, data_rank) for stage in chosen for data_rank in traced_ranks(rendered.layout)]
    jobs = min(len(tasks), _processors())
    found = _Workers(directory, progress).trace(tasks, jobs)
    traces = [fullest([trace for trace in found if trace.stage == stage]) for stage in chosen]
    planned = [rendered.plan.stages[trace.stage] for trace in traces]
    rows = [
        row
        for stage, trace in zip(planned, traces, strict=True)
        for row in compare(stage.memory, trace, planned_host_bytes=stage.host_bytes)
    ]
    largest = sorted((trace.resident_bytes for trace in found), reverse=True)
    return Verification(
        rendered=rendered,
        notes=notes_on(rendered),
        traces=tuple(traces),
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        resident_bytes=sum(largest[:jobs]) + peak_resident_bytes(),
    )


def traced_ranks(layout: Layout) -> tuple[int, ...]:
    """The data ranks of a stage that need most of something.

    At ZeRO-2 the last one's share of the gradients comes first in backward, so its buffer is there the
    longest (zero/stage_1_and_2.py:1268, :2192); the first one's has the embedding's large parameters, which
    the step casts (:2684). In every other mode the first needs as much as any.
    """
    last = layout.sequence_data_parallel_size - 1
    return (0, last) if layout.zero_stage == 2 and last > 0 else (0,)


def notes_on(rendered: Rendered) -> tuple[str, ...]:
    """Where ds_config.json or train.yaml is not what plan.json was made with. They are what is traced."""
    from vdsgen.render.check_rendered import differences
    from vdsgen.render.engine_config import engine_config

    notes = [
        f"ds_config.json: {key} is {json.dumps(found)}, the plan says {json.dumps(wanted)}"
        for key, found, wanted in differences(
            rendered.ds_config, engine_config(rendered.plan, rendered.experiment)
        )
    ]
    if len(notes) > NOTES_SHOWN:
        notes[NOTES_SHOWN - 1 :] = [f"ds_config.json: {len(notes) - NOTES_SHOWN + 1} more differences"]
    if sha256_of(rendered.experiment) != rendered.plan.inputs.experiment_sha256:
        notes.append("train.yaml is not what was planned for: it was edited since")
    return tuple(notes)


def _check(rendered: Rendered, stages: Sequence[int]) -> None:
    for module in ("torch", "deepspeed"):
        if find_spec(module) is None:
            raise VdsgenError(
                f"verifying runs the training engine, which needs {module}; it is not installed",
                remedy="pip install 'vdsgen[train]' (no GPU is needed)",
            )
    if not isinstance(rendered.experiment.model, Vdt | DiffusersModel):
        raise VdsgenError(f"{rendered.path}/train.yaml: the model's sizes are not written out", remedy=AGAIN)
    planned, asked = len(rendered.plan.stages), rendered.layout.pipeline_parallel_size
    if planned != asked:
        raise VdsgenError(
            f"{rendered.path}: plan.json has {planned} stages, ds_config.json asks for {asked}: there is "
            f"nothing to compare",
            remedy=AGAIN,
        )
    for stage in stages:
        if stage >= planned:
            raise VdsgenError(f"there is no stage {stage}: {rendered.path} has {planned}, counted from 0")
    _check_offload(rendered)


def _check_offload(rendered: Rendered) -> None:
    """Host memory is traced; two things are not."""
    zero = rendered.ds_config.get("zero_optimization") or {}
    for key in ("zero_quantized_weights", "zero_quantized_gradients"):
        if zero.get(key):
            raise VdsgenError(
                f"{rendered.path}: ds_config.json sets {key}, whose kernels run on a GPU alone: it cannot be "
                f"traced",
                remedy="verify the plan with constraints.zero_quantized_weights and _gradients false",
            )
    places = {
        key: (zero.get(key) or {}).get("device", "none") for key in ("offload_optimizer", "offload_param")
    }
    for section, place in places.items():
        if place == "nvme":
            raise VdsgenError(
                f"{rendered.path}: ds_config.json offloads to NVMe ({section}), which cannot be traced: the "
                f"engine's compiled reader and writer need memory with contents",
                remedy="verify the same plan with the offload to cpu",
            )
    if places["offload_param"] == "cpu" and rendered.layout.sequence_data_parallel_size == 1:
        raise VdsgenError(
            f"{rendered.path}: ds_config.json offloads one rank's parameters (offload_param), which cannot "
            f"be traced: a GPU gets copies of them, and this processor computes on them where they are",
            remedy="verify a plan with two data ranks or more, or with the parameters on the GPU",
        )


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Workers:
    """The processes of one verification."""

    def __init__(self, directory: Path, progress: Progress) -> None:
        self._directory = directory
        self._progress = progress
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._shares: dict[Task, float] = {}

    def trace(self, tasks: Sequence[Task], jobs: int) -> list[StageTrace]:
        """In the order of `tasks`. The first failure ends all."""
        self._shares = dict.fromkeys(tasks, 0.0)
        with tempfile.TemporaryDirectory(prefix="vdsgen-verify-") as folder:
            pool = ThreadPoolExecutor(jobs)
            try:
                futures = [pool.submit(self._trace, task, Path(folder)) for task in tasks]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()  # raises what the first to fail raised
                return [future.result() for future in futures]
            finally:
                self._stop()
                pool.shutdown(cancel_futures=True)

    def _trace(self, task: Task, folder: Path) -> StageTrace:
        stage, data_rank = task
        answer, log = (folder / f"stage{stage}-{data_rank}.{suffix}" for suffix in ("json", "log"))
        command = [
            sys.executable,
            "-m",
            MODULE,
            str(self._directory),
            str(stage),
            str(data_rank),
            str(answer),
        ]
        with log.open("w") as stream:
            process = self._start(command, stream)
            assert process.stdout is not None
            with process.stdout as shares:
                for share in shares:
                    self._report(task, float(share))
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        if code != 0:
            raise _failure(stage, code, answer, log)
        self._report(task, 1.0)
        return StageTrace.model_validate_json(answer.read_bytes())

    def _start(self, command: list[str], log: TextIO) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise VdsgenError("verification was ended")
            process: subprocess.Popen[str] = subprocess.Popen(  # noqa: S603 - this interpreter, our module
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **ENVIRONMENT},
            )
            self._running.add(process)
            return process

    def _report(self, task: Task, share: float) -> None:
        with self._lock:
            self._shares[task] = share
            self._progress(sum(self._shares.values()) / len(self._shares))

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


def _failure(stage: int, code: int, answer: Path, log: Path) -> VdsgenError:
    try:
        told = json.loads(answer.read_text())
    except (OSError, ValueError):
        told = {}
    if code == BAD_INPUT and told:
        return VdsgenError(str(told["error"]), remedy=told["remedy"])
    ended = told.get("error") or f"exit code {code}"
    if code < 0:
        ended = f"ended by {signal.Signals(-code).name}"
    tail = "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-8:])
    return VdsgenError(
        f"stage {stage}: the training engine does not run this plan: {ended}\n{tail}",
        remedy="if ds_config.json was edited by hand, take the edit back; else this is a defect of vdsgen",
    )
