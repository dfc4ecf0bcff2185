"""A run of `vdsgen launch` seen from outside: its processes, its steps, its checkpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.forks.start import Fork, start
from vdsgen.launch.starts import last_step
from vdsgen.launch.watch import state_of
from vdsgen.spec.checkpoints import CHECKPOINTS, RECORD, read_checkpoints

TOKEN = "PYTHON_VDSGEN_CAMPAIGN"
"""Variable that marks all of a run's processes. Those on other hosts get it too: its name begins so."""
SECONDS = 180.0
"""For whatever is waited for."""


@dataclass(slots=True)
class Launched:
    """From the start of `vdsgen launch` to its end."""

    plan: Path
    run: Path
    arguments: tuple[str, ...]
    forks: bool
    """Python processes are forks of one that has imported torch and DeepSpeed; else all start anew."""
    environment: Mapping[str, str] = field(default_factory=dict)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: Fork | subprocess.Popen[bytes] = field(init=False)
    _shown: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._shown = self.shown_file.open("wb")
        argv = ["launch", str(self.plan), "--output", str(self.run), *self.arguments]
        environment = {**self.environment, TOKEN: self.token}
        if self.forks:
            self.process = start("vdsgen", *argv, environment=environment, stdout=self._shown, forks=True)
            return
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vdsgen", *argv],
            env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._shown,
            stderr=subprocess.STDOUT,
        )

    @property
    def shown_file(self) -> Path:
        return self.run.with_suffix(".shown")

    def shown(self) -> str:
        return self.shown_file.read_text(errors="replace")

    def processes(self) -> dict[int, dict[str, str]]:
        """All but `vdsgen launch` itself, with their environments."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                pairs = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            shown = (pair.decode(errors="replace").partition("=") for pair in pairs if pair)
            environment = {key: value for key, _, value in shown}
            if environment.get(TOKEN) == self.token and int(entry.name) != self.process.pid:
                found[int(entry.name)] = environment
        return found

    def ranks(self) -> dict[int, int]:
        """Rank -> process. A rank's own children have a parent with a rank."""
        found = self.processes()
        return {
            int(environment["RANK"]): pid
            for pid, environment in found.items()
            if environment.get("RANK", "").isdecimal() and "RANK" not in found.get(parent_of(pid), {})
        }

    def step(self) -> int:
        return last_step(self.run)

    def saved(self) -> int:
        """Step of the last complete checkpoint; 0: none."""
        return max((record.step for record in read_checkpoints(self.run)[0].values()), default=0)

    def is_saving(self) -> bool:
        """A checkpoint is there that nothing vouches for yet."""
        folder = self.run / CHECKPOINTS
        saved = self.saved()
        with suppress(OSError):
            for entry in folder.iterdir():
                number = entry.name.partition("-")[2]
                if number.isdecimal() and int(number) > saved and not (entry / RECORD).exists():
                    return True
        return False

    def metrics(self) -> tuple[int, int]:
        """Which file it is: another one after every start. And its size."""
        try:
            status = (self.run / "metrics.jsonl").stat()
        except OSError:
            return 0, 0
        return status.st_ino, status.st_size

    def starts(self) -> list[dict[str, Any]]:
        try:
            return list(json.loads((self.run / "run.json").read_text())["starts"])
        except (OSError, ValueError, KeyError):
            return []

    def wait_for(self, what: str, happens: Callable[[], bool], seconds: float = SECONDS) -> float:
        """Returns the moment (time.monotonic) at which it happened."""
        deadline = time.monotonic() + seconds
        while not happens():
            if self.ended():
                raise AssertionError(f"the launch ended before {what}:\n{self.shown()[-3000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} in {seconds:.0f} s:\n{self.shown()[-3000:]}")
            time.sleep(0.002)
        return time.monotonic()

    def ended(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0)
            return True
        return False

    def finish(self, seconds: float = SECONDS) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """Nothing of it is left."""
        self.process.kill()
        while left := self.processes():
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self._shown.close()


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def is_gone(pid: int) -> bool:
    """Nothing of it holds a device, a port or memory any more."""
    return state_of(pid) in ("", "Z", "X")


def losses(run: Path) -> list[tuple[Any, ...]]:
    """What must be the same to the last bit, step by step."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [tuple(row[key] for key in ("step", "loss", "grad_norm", "learning_rate")) for row in rows]


def held_out_losses(run: Path) -> list[tuple[Any, ...]]:
    path = run / "validation.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    # A run also looks at its last step, which is not the same one's for a run that was asked to stop.
    last = losses(run)[-1][0]
    return [(row["step"], row["weights"], *row["loss_by_quantile"]) for row in rows if row["step"] < last]
