"""Runs a module on several gloo ranks, each its own process, and returns what each said."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from tests.forks.start import free_port, start


def run_ranks(
    module: str,
    world_size: int,
    job: dict[str, Any],
    timeout_seconds: float = 240,
    imports: Sequence[str] = (),
) -> list[Any]:
    """Starts `python -m module` once a rank with the job (JSON) on standard input, as tests/forks/start.py
    starts processes: a rank costs no import of torch or DeepSpeed, nor of what else `imports` names, so give
    each layout the number of ranks that it needs.

    Each rank prints its answer as the last line, JSON. Fails with a rank's output if it fails.
    """
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(world_size)]
        port = free_port()
        processes = []
        for rank, output in enumerate(outputs):
            environment = rank_environment(rank, world_size, port)
            process = start(
                module, environment=environment, imports=imports, stdin=json.dumps(job), stdout=output
            )
            processes.append(process)
            stack.callback(process.kill)
        codes = [process.wait(timeout_seconds) for process in processes]
        said = []
        for output in outputs:
            output.seek(0)
            said.append(output.read())
    failed = [
        f"rank {rank} of {job} exited with {code}:\n{text[-4000:]}"
        for rank, (code, text) in enumerate(zip(codes, said, strict=True))
        if code
    ]
    assert not failed, "\n\n".join(failed)
    return [json.loads(text.splitlines()[-1]) for text in said]


DIFFUSERS = ("diffusers.models.transformers", "diffusers.models.unets")
"""`imports` of ranks that build models of diffusers: a second and a half of a core for each."""


def rank_environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
