"""The hosts that a file names, each asked by ssh what hardware it has."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from vdsgen.errors import InputError, Problem, VdsgenError
from vdsgen.launch.backends.ssh import OPTIONS
from vdsgen.scan import probe
from vdsgen.scan.answer import MOST_BYTES, Answer, read_answer
from vdsgen.spec.base import HOST_NAME_PATTERN

MOST_HOSTS = 1024
AT_ONCE = 32
"""Connections that are open at the same time."""

SECONDS = 90
"""How long a host may take: a connection (20 s), and what the probe asks there."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a host answered, or why it did not."""

    host: str
    answer: Answer | None = None
    failure: str | None = None


def read_hosts(path: Path) -> tuple[str, ...]:
    """Host names, one a line; `#` begins a comment, and what a DeepSpeed hostfile says after a name is left
    out. Raises InputError with every bad line."""
    named: dict[str, int] = {}
    problems = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        host = words[0]
        problem = _problem(host, words[1:], named)
        if problem:
            problems.append(Problem(problem[0], file=str(path), line=number, remedy=problem[1]))
        named.setdefault(host, number)
    if not named:
        problems.append(Problem("names no host", file=str(path), remedy="one a line, as ssh knows them"))
    if len(named) > MOST_HOSTS:
        problems.append(Problem(f"names {len(named)} hosts, at most {MOST_HOSTS} are asked", file=str(path)))
    if problems:
        raise InputError(problems)
    return tuple(named)


def _problem(host: str, rest: list[str], named: dict[str, int]) -> tuple[str, str | None] | None:
    if not re.fullmatch(HOST_NAME_PATTERN, host, re.ASCII) or len(host) > 253:
        remedy = "letters, digits, `.` and `-`; users and ports go into ~/.ssh/config"
        return f"{host[:80]!r} is no host name", remedy
    if any(not re.fullmatch(r"slots=\d+", word) for word in rest):
        return f"after {host} stands {' '.join(rest)[:80]!r}", "one host a line, as in a hostfile"
    if host in named:
        return f"{host} stands in line {named[host]} too", None
    return None


def ask_hosts(hosts: tuple[str, ...]) -> list[Heard]:
    """All of them at the same time, in their order."""
    with ThreadPoolExecutor(min(AT_ONCE, len(hosts))) as pool:
        return list(pool.map(ask_host, hosts))


def ask_host(host: str, seconds: float = SECONDS) -> Heard:
    """Runs the probe there: its source goes to Python's standard input, nothing is left on the host."""
    source = Path(probe.__file__).read_bytes()
    try:
        process = subprocess.Popen(  # noqa: S603
            ["ssh", *OPTIONS, "--", host, "python3 -"],  # noqa: S607
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise VdsgenError("there is no ssh here", remedy="install OpenSSH's client") from error
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    timer = Timer(seconds, process.kill)
    timer.start()
    try:
        _send(process, source)
        printed = process.stdout.read(MOST_BYTES + 1)
        if len(printed) > MOST_BYTES:
            process.kill()
            return Heard(host, failure="it does not stop printing")
        said = process.stderr.read(MOST_BYTES).decode(errors="replace").strip().splitlines()
        code = process.wait()
        ended = not timer.is_alive()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with suppress(BrokenPipeError):
                stream.close()
    if ended:
        return Heard(host, failure=f"no answer within {seconds:g} s")
    if code:
        last = probe.printable(said[-1]) if said else f"ssh ended with {code}"
        return Heard(host, failure=last)
    try:
        return Heard(host, read_answer(printed.decode(errors="replace")))
    except VdsgenError as error:
        return Heard(host, failure=error.message)


def _send(process: subprocess.Popen[bytes], source: bytes) -> None:
    """A host that is not reached reads nothing: ssh's own message says why."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(source)
        process.stdin.close()
