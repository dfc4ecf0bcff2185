"""Starts Python modules as processes that need not import torch and DeepSpeed: they are forks of one process
that has imported both.

`start("tests.model.layout_worker", ...)` is `subprocess.Popen([sys.executable, "-m", ...])` in milliseconds
and not seconds of a core. Use it, or `tests.model.ranks.run_ranks` over it, for ranks and workers whose own
start is not what is tested. Forks differ from other processes in three things: all have one seed of hashes;
ENVIRONMENT below is read while modules are imported, so no fork has another; and the largest resident memory
that the kernel tells of a fork includes the imports'. Tests of `vdsgen launch`, of `vdsgen verify` and of
DeepSpeed's runner start real processes.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from tests.forks.python import ROOM, ROOM_BYTES

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}


class Fork:
    """A process that was forked: what tests use of subprocess.Popen."""

    def __init__(self, module: str, answer: IO[bytes]) -> None:
        self.module = module
        self._answer = answer
        self.pid = int(answer.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None:
            if not select.select([self._answer], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.module, timeout or 0)
            # No line: the server was killed, and its forks with it.
            self.returncode = int(self._answer.readline() or -signal.SIGKILL)
            self._answer.close()
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None and not select.select([self._answer], [], [], 0)[0]:
            os.kill(self.pid, signal.SIGKILL)


def start(
    module: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    imports: Sequence[str] = (),
    stdin: str = "",
    stdout: IO[Any],
    stderr: IO[Any] | None = None,
    forks: bool = False,
) -> Fork:
    """`python -m module arguments` in the project's folder, with these variables beside this process's.

    `imports` are libraries that it takes long to import: they are imported once, for all forks after it too.
    Output goes to open files, errors to that of `stdout` where no other is given. `forks`: Python processes
    that the module starts are forks too (tests/forks/python.py).
    """
    variables = {**os.environ, **ENVIRONMENT, **(environment or {})}
    assert variables.items() >= ENVIRONMENT.items(), f"{ENVIRONMENT} is what the server imported with"
    request = {
        "module": module,
        "arguments": arguments,
        "environment": variables,
        "folder": str(ROOT),
        "imports": imports,
        "forks": forks,
    }
    with tempfile.TemporaryFile("w+") as given:
        given.write(stdin)
        given.seek(0)
        return _server().fork(request, [stream.fileno() for stream in (given, stdout, stderr or stdout)])


def free_port() -> int:
    """For the rendezvous of ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Server:
    """The process of tests/forks/server.py."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the server
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forks.server", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, **ENVIRONMENT, ROOM: "x" * ROOM_BYTES},
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.close)

    def fork(self, request: dict[str, Any], streams: Sequence[int]) -> Fork:
        reading, writing = os.pipe()
        answer = os.fdopen(reading, "rb", buffering=0)
        try:
            with self._lock:
                socket.send_fds(self._requests, [json.dumps(request).encode()], [*streams, writing])
        finally:
            os.close(writing)
        try:
            return Fork(request["module"], answer)
        except ValueError:
            self._log.seek(0)
            raise RuntimeError(f"the fork server ended:\n{self._log.read()[-4000:]}") from None

    def close(self) -> None:
        self._requests.close()
        self._process.wait()
        self._log.close()


_ONE = threading.Lock()
_cached = cache(_Server)


def _server() -> _Server:
    """One, whoever asks first."""
    with _ONE:
        return _cached()
