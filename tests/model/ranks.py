"""Runs a function on several gloo ranks, each its own process, and returns what each said."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_ranks(module: str, world_size: int, job: dict[str, Any], timeout_seconds: float = 240) -> list[Any]:
    """Starts `python -m module` once a rank with the job (JSON) on standard input.

    Each rank prints its answer as the last line, JSON. Fails with a rank's output if it fails.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = Path(__file__).resolve().parents[2]
    processes = []
    for rank in range(world_size):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=root,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(job))
            process.stdin.close()
            process.stdin = None
        outputs = [process.communicate(timeout=timeout_seconds)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    failed = [
        f"rank {rank} of {job} exited with {process.returncode}:\n{output[-4000:]}"
        for rank, (process, output) in enumerate(zip(processes, outputs, strict=True))
        if process.returncode
    ]
    assert not failed, "\n\n".join(failed)
    return [json.loads(output.splitlines()[-1]) for output in outputs]
