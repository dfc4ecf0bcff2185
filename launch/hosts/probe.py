"""One small process on a host, which answers whoever started it until its standard input ends:

    python -m vdsgen.launch.hosts.probe

A request is a line of JSON on standard input, `{"do": NAME, ...}`; its answer a line on standard output that
begins with `ANSWER`, whatever else a login shell may print there. What fails is answered too, as
`{"error": TEXT}`. Nothing that was started for it outlives the process.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vdsgen.files import write_atomically
from vdsgen.launch.hosts.facts import LookRequest
from vdsgen.launch.hosts.look import look
from vdsgen.launch.hosts.ports import Listener, greeting_of
from vdsgen.launch.hosts.ranks import run_ranks
from vdsgen.spec.run import LAUNCHER_PROCESS

ANSWER = "[vdsgen probe] "
LONGEST_TOKEN = 256
AGAIN_SECONDS = 0.2
SILENCE_SECONDS = 300.0
"""Nobody asks any more: the connection was cut, which a host by itself may learn of hours later."""


class Probe:
    """Answers requests; holds what one request starts and a later one ends."""

    def __init__(self) -> None:
        self._listener: Listener | None = None
        self._answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "clock": lambda _: {"seconds": time.time()},
            "look": lambda asked: {"facts": _looked(asked["request"])},
            "mark": self._mark,
            "seen": self._seen,
            "listen": self._listen,
            "connect": _connect,
            "quiet": self._quiet,
            "ranks": lambda asked: run_ranks(stdin=sys.stdin.fileno(), **asked["ranks"]),
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._answers[request["do"]](request)
        except OSError as error:
            return {"error": error.strerror or str(error)}
        except (ValueError, KeyError, TypeError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _mark(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Leaves a file for the other hosts; the folder is there, or is not shared."""
        folder = Path(asked["folder"])
        folder.stat()
        write_atomically(folder / asked["name"], asked["token"].encode())
        return {}

    def _seen(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The files of the others, as soon as all are there; those that are, after `patience_seconds`."""
        deadline = time.monotonic() + asked["patience_seconds"]
        while True:
            found = {name: text for name in asked["names"] if (text := _token(Path(asked["folder"], name)))}
            if len(found) == len(asked["names"]) or time.monotonic() > deadline:
                return {"tokens": found}
            time.sleep(AGAIN_SECONDS)

    def _listen(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._quiet(asked)
        self._listener = Listener(asked["port"], asked["token"])
        return {}

    def _quiet(self, _asked: dict[str, Any]) -> dict[str, Any]:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        return {}


def _looked(request: str) -> str:
    return look(LookRequest.model_validate_json(request)).model_dump_json()


def _connect(asked: dict[str, Any]) -> dict[str, Any]:
    return {"greeting": greeting_of(asked["address"], asked["port"], asked["patience_seconds"])}


def _token(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(LONGEST_TOKEN).decode(errors="replace")
    except OSError:
        return ""


def main() -> int:
    # What this process starts ends with it, should even SIGKILL end it.
    os.environ[LAUNCHER_PROCESS] = str(os.getpid())
    probe = Probe()
    _say({"ready": socket.gethostname()})
    # Not `for line in sys.stdin`, which reads ahead.
    while select.select([sys.stdin], [], [], SILENCE_SECONDS)[0] and (line := sys.stdin.readline()):
        if line.strip():
            _say(probe.answer(json.loads(line)))
    return 0


def _say(answer: dict[str, Any]) -> None:
    print(f"{ANSWER}{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
