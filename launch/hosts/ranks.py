"""Ranks of a small job on this host, for the time of one request: they measure, and end."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

LOOK_SECONDS = 0.05
LAST_CHARACTERS = 1500


def run_ranks(
    *,
    module: str,
    first_rank: int,
    count: int,
    world_size: int,
    address: str,
    port: int,
    arguments: Sequence[str],
    environment: Mapping[str, str | None],
    seconds: float,
    stdin: int,
) -> dict[str, Any]:
    """Runs `python -m module arguments` as ranks `first_rank` and on, in a world of `world_size` that meets
    at `address` and `port`.

    Answers `{"results": {rank: the JSON of its last line}}`, or `{"error": ..., "rank": ...}` with the last
    words of the rank that failed first. Ends all of them after `seconds`, and when `stdin` does.
    """
    variables = {key: value for key, value in os.environ.items() if key not in environment}
    variables |= {key: value for key, value in environment.items() if value is not None}
    variables |= {"WORLD_SIZE": str(world_size), "MASTER_ADDR": address, "MASTER_PORT": str(port)}
    started: list[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]] = []
    try:
        for local in range(count):
            said, complained = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - below
            ranked = {"RANK": str(first_rank + local), "LOCAL_RANK": str(local)}
            process = subprocess.Popen(  # noqa: S603 - an argument list
                [sys.executable, "-m", module, *arguments],
                env=variables | ranked,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=complained,
            )
            started.append((process, said, complained))
        failed = _wait([process for process, _, _ in started], time.monotonic() + seconds, stdin)
        if failed is not None:
            index, reason = failed
            words = _read(started[index][2]).strip()[-LAST_CHARACTERS:]
            return {"error": reason, "rank": first_rank + index, "words": words}
        results = [json.loads(_read(output).strip().splitlines()[-1]) for _, output, _ in started]
        return {"results": dict(enumerate(results, start=first_rank))}
    finally:
        for process, *streams in started:
            process.kill()
            process.wait()
            for stream in streams:
                stream.close()


def _wait(
    processes: Sequence[subprocess.Popen[bytes]], deadline: float, stdin: int
) -> tuple[int, str] | None:
    """Until all have ended well, or the first has not: its place and why."""
    while True:
        codes = [process.poll() for process in processes]
        for index, code in enumerate(codes):
            if code:
                return index, f"exited with code {code}" if code > 0 else f"was killed by signal {-code}"
        if None not in codes:
            return None
        if time.monotonic() > deadline:
            return codes.index(None), "took too long"
        # Requests come one at a time: what is readable here is the end.
        if select.select([stdin], [], [], LOOK_SECONDS)[0]:
            return codes.index(None), "was told to end"


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")
