"""A process with a real engine, one rank, whose children save and meet a fault: each is a fork, so that a
fault costs hundredths of a second.

Reads {"faults": [...], "folder": ..., "disk": ...} from standard input and prints, as its last line, what
came of each; and of being killed at everything that a save does to files.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.model.checkpoint_worker import rendered_of, trained
from tests.model.layout_worker import GEOMETRY, MODEL, SEED
from vdsgen.model import checkpoint, saves, soundness
from vdsgen.model.build import build_engine
from vdsgen.model.checkpoint import CheckpointError
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.saves import Saves
from vdsgen.spec.checkpoints import CHECKPOINTS, read_checkpoints
from vdsgen.spec.rendered import Rendered
from vdsgen.spec.training import Saving
from vdsgen.verify.fake_rank import join_fake_group

CONFIG = {
    "train_batch_size": 4,
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 2,
    "pipeline": {"stages": 1, "partition": [0, MODEL.depth + 2], "activation_checkpoint_interval": 0},
    "zero_optimization": {"stage": 1},
    "bf16": {"enabled": True},
    "data_types": {"grad_accum_dtype": "fp32"},
    "vdsgen": {"ema": {"decay": 0.5}},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True, "fused": True}},
}
FAILED = 3
"""Exit code of a child whose save ended with a CheckpointError."""


def alone() -> None:
    """Collectives of one rank, without threads that a fork would lose."""
    join_fake_group(0, 1)
    for module in (soundness, saves):
        module.everybodys = lambda answer: [answer()]  # type: ignore[attr-defined]
    soundness.known_to_all = lambda find: find()  # type: ignore[attr-defined]


class Dying:
    """Kills this process at the n-th thing that it does to a file of the run."""

    EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "tempfile.mkstemp", "shutil.rmtree")

    def __init__(self, run: Path, at: int) -> None:
        self._under, self._left = str(run), at
        self._flush = os.fsync
        os.fsync = self._fsync  # type: ignore[assignment]
        sys.addaudithook(self._seen)

    def _seen(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in self.EVENTS and arguments and str(arguments[0]).startswith(self._under):
            self._count()

    def _fsync(self, descriptor: int) -> None:
        self._count()
        self._flush(descriptor)

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def child(engine: TrainingEngine, run: Path, rendered: Rendered, fault: dict[str, Any]) -> None:
    """Saves step 2, and keeps it alone."""
    if "die_at" in fault:
        Dying(run, fault["die_at"])
    if "file_limit" in fault:
        # Python ignores the signal, and the write fails; else it ends the process within a write.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fault["dies"] else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["file_limit"], resource.RLIM_INFINITY))
    with Saves(engine, run, rendered, Saving(keep=1, asynchronous=fault["asynchronous"]), 0) as saving:
        saving.save(2)
        saving.finish()


def forked(engine: TrainingEngine, run: Path, rendered: Rendered, fault: dict[str, Any]) -> int:
    """The child's exit code, negative for a signal."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(engine, run, rendered, fault)
            code = 0
        except CheckpointError:
            code = FAILED
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def outcome(
    engine: TrainingEngine, base: Path, run: Path, rendered: Rendered, fault: dict[str, Any]
) -> dict[str, Any]:
    """A run with the checkpoint of step 1 meets the fault while it saves step 2."""
    shutil.copytree(base, run)
    with limited_disk(fault.get("disk_bytes"), run):
        code = forked(engine, run, rendered, fault)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        _, record = soundness.last_sound(run)
    complete, incomplete = read_checkpoints(run)
    newest = run / CHECKPOINTS / "step-00000002"
    latest = (run / CHECKPOINTS / "latest").read_text()
    found = {
        "fault": fault,
        "code": code,
        "step": record.step,
        "half_written": newest.exists() and newest not in complete,
        "named": newest.name in said.getvalue(),
        "latest_is_complete": run / CHECKPOINTS / latest in complete,
        "others_named": all(sentence in said.getvalue() for sentence in incomplete),
    }
    again = forked(engine, run, rendered, {"asynchronous": False})
    with contextlib.redirect_stdout(io.StringIO()):
        found["saved_again"] = again == 0 and soundness.last_sound(run)[1].step == 2
    shutil.rmtree(run)
    return found


@contextlib.contextmanager
def limited_disk(more_bytes: int | None, run: Path) -> Iterator[None]:
    """So many bytes more than there are fit into the file system (tmpfs) that the run lies on."""
    if more_bytes is None:
        yield
        return
    used = os.statvfs(run)
    used_bytes = (used.f_blocks - used.f_bfree) * used.f_frsize
    resize(run, used_bytes + more_bytes)
    try:
        yield
    finally:
        resize(run, 1024**3)


def resize(run: Path, size_bytes: int) -> None:
    mount = next(path for path in run.parents if os.path.ismount(path))
    subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(mount)], check=True)


def main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    alone()
    folder = Path(job["folder"])
    engine = build_engine(CONFIG, MODEL, GEOMETRY, SEED)
    rendered = rendered_of(CONFIG)
    trained(engine, CONFIG, 0, 1)
    base = folder / "base"
    checkpoint.save(engine, base, 1, rendered, Saving())
    trained(engine, CONFIG, 1, 2)
    results = []
    for fault in job["faults"]:
        where = Path(job["disk"]) if "disk_bytes" in fault else folder
        results.append(outcome(engine, base, where / "run", rendered, fault))
    for asynchronous in (False, True):
        for at in itertools.count(1):
            fault = {"asynchronous": asynchronous, "die_at": at}
            found = outcome(engine, base, folder / "run", rendered, fault)
            if found["code"] == 0:  # it does no more than that
                break
            results.append(found)
    sizes = {path.name: path.stat().st_size for path in (base / CHECKPOINTS / "step-00000001").iterdir()}
    print(flush=True)
    print(json.dumps({"results": results, "sizes": sizes}), flush=True)


if __name__ == "__main__":
    main()
