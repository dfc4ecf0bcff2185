"""`python -m MODULE` without its start: in a process of the fork server that calls `install`, whatever starts
this interpreter on a module is given a fork of itself instead, which has torch and DeepSpeed already.

All else is as it would be: the fork is a child of whoever started it, with its descriptors, environment
(/proc/PID/environ says the same), session and signals. So `vdsgen launch` runs as it is, with DeepSpeed's
runner, its launcher and the ranks, and a start costs tenths of a second of a core and not half a minute.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOM = "VDSGEN_TEST_ROOM"
"""Variable that makes the environment's place in the server's memory large enough for any fork's."""
ROOM_BYTES = 2**16


def install() -> None:
    """For this process and all that it starts."""
    original = subprocess.Popen._execute_child  # type: ignore[attr-defined]

    def execute_child(self: Any, args: Any, *more: Any) -> None:
        started = module_of(args)
        if started is None:
            original(self, args, *more)
            return
        (_, _, _, _, cwd, env, _, _, _, *descriptors, _, _, _, _, _, new_session, _) = more
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = descriptors
        self.pid = fork(started, (p2cread, c2pwrite, errwrite), env, cwd, new_session=new_session)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def execv(path: str, argv: Sequence[str]) -> NoReturn:
        started = module_of(argv)
        assert started is not None, f"{argv} cannot be forked"
        run(*started)

    subprocess.Popen._execute_child = execute_child  # type: ignore[attr-defined]
    os.execv = execv  # type: ignore[assignment]


def module_of(argv: Any) -> tuple[str, list[str]] | None:
    """Module and arguments of `python -u -m MODULE ...`; None for all other commands."""
    if isinstance(argv, str | bytes | os.PathLike):
        return None
    words = [os.fsdecode(word) for word in argv]
    if not words or words[0] != sys.executable:
        return None
    words = words[2:] if words[1:2] == ["-u"] else words[1:]
    return (words[1], words[2:]) if words[:1] == ["-m"] and len(words) > 1 else None


def fork(
    started: tuple[str, list[str]],
    streams: tuple[int, int, int],
    env: Mapping[str, str] | None,
    cwd: Any,
    *,
    new_session: bool,
) -> int:
    """Its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _become(started, streams, env, cwd, new_session=new_session)
    return pid


def _become(
    started: tuple[str, list[str]],
    streams: tuple[int, int, int],
    env: Mapping[str, str] | None,
    cwd: Any,
    *,
    new_session: bool,
) -> NoReturn:
    try:
        if new_session:
            os.setsid()
        for number, descriptor in enumerate(streams):
            if descriptor >= 0:
                os.dup2(descriptor, number)
        os.closerange(3, 4096)
        _plain_signals()
        if cwd is not None:
            os.chdir(cwd)
        variables = dict(os.environ if env is None else env)
        os.environ.clear()
        os.environ.update(variables)
        show_environment(variables)
    except BaseException:
        traceback.print_exc()
        os._exit(255)
    run(*started)


def run(module: str, arguments: Sequence[str]) -> NoReturn:
    """This process is now `python -m module arguments`."""
    code = 1
    try:
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _plain_signals() -> None:
    """As after exec: handlers are gone, ignored signals stay ignored; then as Python sets itself up."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            if signal.getsignal(number) not in (signal.SIG_IGN, signal.SIG_DFL):
                signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def show_environment(variables: Mapping[str, str]) -> None:
    """What /proc/PID/environ says, which is read where exec put it: fields 50 and 51 of proc_pid_stat(5).
    Nothing else may still point there: os.environ was cleared before."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[47]), int(fields[48])
    content = b"".join(os.fsencode(f"{key}={value}") + b"\0" for key, value in variables.items())
    assert len(content) <= end - begin, "the fork server was started with too little room"
    ctypes.memmove(begin, content.ljust(end - begin, b"\0"), end - begin)
