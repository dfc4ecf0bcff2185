"""A process that has imported what ranks need, and forks one for each request.

python -m tests.forks.server DESCRIPTOR

A request is a message on the socket, JSON {"module", "arguments", "environment", "folder", "imports",
"forks"}, with four file descriptors: standard input, output and error of the fork, and where the server
writes its process id and, in the end, its exit code, a line each. The server ends, and its forks with it,
once the socket is closed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from tests.forks import python

MODULES = (
    "torch",
    "torch._dynamo",  # optimizers and modes like LiveBytes import it when they are first used
    "torch.distributed.tensor",
    "deepspeed",
    "deepspeed.pipe",
    "vdsgen.model.build",
    "vdsgen.model.curves",  # and what else the trainer imports
    "vdsgen.model.data.loader",
    "vdsgen.model.record",
    "vdsgen.model.sample",
    "vdsgen.profile.live_bytes",
)
LARGEST_REQUEST_BYTES = 2**18
DESCRIPTORS = 4


def serve(requests: socket.socket) -> None:
    _import(MODULES)
    running: dict[int, tuple[int, int]] = {}  # a fork's pidfd -> its process id, where its exit code goes
    while True:
        awaited: list[Any] = [requests, *running]
        ready, _, _ = select.select(awaited, [], [])
        for pidfd in running.keys() & set(ready):
            _report(*running.pop(pidfd))
            os.close(pidfd)
        if requests in ready:
            message, given, _, _ = socket.recv_fds(requests, LARGEST_REQUEST_BYTES, DESCRIPTORS)
            if not message:
                break
            request = json.loads(message)
            _import(request["imports"])
            pid = _fork(request, given, [requests.fileno(), *_descriptors(running)])
            os.write(given[3], f"{pid}\n".encode())
            for descriptor in given[:3]:
                os.close(descriptor)
            running[os.pidfd_open(pid)] = (pid, given[3])
    for pid, _ in running.values():
        os.kill(pid, signal.SIGKILL)


def _import(modules: Iterable[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # forks share these objects' memory: no collection may write to it


def _descriptors(running: dict[int, tuple[int, int]]) -> list[int]:
    return [descriptor for pidfd, (_, answer) in running.items() for descriptor in (pidfd, answer)]


def _report(pid: int, answer: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):  # whoever started it may no longer ask
        os.write(answer, f"{code}\n".encode())
    os.close(answer)


def _fork(request: dict[str, Any], given: list[int], of_the_server: list[int]) -> int:
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"an import started {threads - 1} threads, which a fork would not have"
    pid = os.fork()
    if pid == 0:
        _become(request, given, of_the_server)
    return pid


def _become(request: dict[str, Any], given: list[int], of_the_server: list[int]) -> NoReturn:
    """This process is now `python -m module`."""
    code = 1
    try:
        for number in range(3):
            os.dup2(given[number], number)
        for descriptor in (*given, *of_the_server):
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        if request["forks"]:
            python.show_environment(request["environment"])
            python.install()
        sys.argv = [request["module"], *request["arguments"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = _exit_code(ended)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exit_code(ended: SystemExit) -> int:
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    print(ended.code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # control-C is for whoever started this and for its forks
    serve(socket.socket(fileno=int(sys.argv[1])))
