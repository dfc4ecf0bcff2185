"""The launcher's end of `vdsgen.launch.hosts.probe`: starts one on a host and asks it things, one by one."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from vdsgen.launch.backends.ssh import over_ssh
from vdsgen.launch.commands import Machine
from vdsgen.launch.hosts.probe import ANSWER

MODULE = "vdsgen.launch.hosts.probe"
CONNECT_SECONDS = 10
"""For ssh to reach a host: pre-flight is to be short, and a host that takes longer is not well."""
READY_SECONDS = 30.0
"""For the probe to say that it is there: Python starts from a shared folder, sometimes slowly."""
END_SECONDS = 2.0
OPTIONS = ("-o", f"ConnectTimeout={CONNECT_SECONDS}")
REMEDIES = (
    (
        "Host key verification failed",
        "compare the host's key, then add it to known_hosts: ssh-keyscan {host} >> ~/.ssh/known_hosts",
    ),
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "if the host was installed again, remove its old key: ssh-keygen -R {host}",
    ),
    ("Permission denied", "let the key in: ssh-copy-id {host} (no password is ever asked for: BatchMode)"),
    ("Could not resolve hostname", "correct the name under `hosts:` in the lab file, or add it to DNS"),
    ("timed out", "is it up, and is its ssh port open from here? ssh {host} true"),
    ("Connection refused", "no sshd listens there on the port that ssh uses: see `Port` in ~/.ssh/config"),
    ("No route to host", "is it up, and in the same network? ssh {host} true"),
    ("cannot change directory", "start where all hosts have the same folder: a shared one"),
    ("No module named", "install vdsgen[train] into the same interpreter's path on that host: {python}"),
    ("No such file or directory", "the interpreter must have the same path on all hosts: {python}"),
)
"""What ssh, env and Python say -> what to do."""


MOST_BYTES = 16 * 2**20
"""Of one answer."""
NO_PROBE = "is the vdsgen there the one that is here?"


class HostError(Exception):
    """A host did not answer. `remedy` is for people."""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


class Host:
    """A probe that runs on a host. Raises HostError where it does not come up; close it, or use `with`."""

    def __init__(
        self, name: str, machine: Machine, environment: Mapping[str, str | None], *, here: bool
    ) -> None:
        """`here`: the host is this machine, which needs no ssh."""
        self.name = name
        self._machine = machine
        argv: tuple[str, ...] = (str(machine.python), "-m", MODULE)
        variables = dict(os.environ)
        if here:
            variables |= {key: value for key, value in environment.items() if value is not None}
            for key in [key for key, value in environment.items() if value is None]:
                variables.pop(key, None)
        else:
            argv = over_ssh(name, machine, environment, argv, OPTIONS)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the host
        self._buffer = b""
        try:
            self._process = subprocess.Popen(  # noqa: S603 - an argument list
                argv,
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            self._errors.close()
            raise HostError(f"there is no {argv[0]} here", "install it (OpenSSH's client)") from error
        try:
            self._answer(READY_SECONDS)
        except BaseException:
            self.close()
            raise

    def ask(self, what: str, *, seconds: float = 20.0, **request: Any) -> dict[str, Any]:
        """The answer. Raises HostError where the host says that it failed, or says nothing in time."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **request}).encode() + b"\n")
        except BrokenPipeError:
            raise self._gone() from None
        answer = self._answer(seconds)
        if "error" in answer and "rank" not in answer:
            raise HostError(answer["error"])
        return answer

    def close(self) -> None:
        """The probe ends with its standard input, and what it has started with it."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while True:
            *lines, self._buffer = self._buffer.split(b"\n")
            for index, line in enumerate(lines):
                text = line.decode(errors="replace")
                if text.startswith(ANSWER):
                    self._buffer = b"\n".join([*lines[index + 1 :], self._buffer])
                    return _read(text.removeprefix(ANSWER))
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise HostError(
                    f"no answer within {seconds:.0f} s", f"is it busy, or its disk? ssh {self.name} uptime"
                )
            read = os.read(self._process.stdout.fileno(), 65536)
            if not read:
                raise self._gone()
            self._buffer += read
            if len(self._buffer) > MOST_BYTES:
                raise HostError(f"answers more than {MOST_BYTES} bytes at once", NO_PROBE)

    def _gone(self) -> HostError:
        """What was said before the connection or the probe ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        remedy = next((remedy for words, remedy in REMEDIES if words in said), None)
        if remedy is not None:
            remedy = remedy.format(host=self.name, python=self._machine.python)
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1] if lines else f"ended with code {self._process.returncode}"
        if "IDENTIFICATION HAS CHANGED" in said:
            last = "the host's key is another one than known_hosts has"
        return HostError(f"does not answer: {last}", remedy)


def _read(text: str) -> dict[str, Any]:
    """A host may say anything."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HostError("answers something that no probe says", NO_PROBE)
    return found
