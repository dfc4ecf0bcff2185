"""What DeepSpeed's own checkpoint writers (`checkpoint.writer`) do on this processor, two ranks each.

    python -m tests.benchmarks.engine_writers

Their processes are stopped for two training steps after the save, as if the disk were that slow.
"""

from __future__ import annotations

import tempfile
from typing import Any

from tests.model.ranks import run_ranks

PYTHON: dict[str, Any] = {"type": "python", "decoupled": True}
FAST: dict[str, Any] = {"type": "fast", "decoupled": True}
CASES: tuple[tuple[str, int, int, dict[str, Any]], ...] = (
    ("pipeline, ZeRO-1, python, decoupled", 2, 1, PYTHON),
    ("pipeline, ZeRO-1, fast, decoupled", 2, 1, FAST),
    ("no pipeline, ZeRO-2, python, decoupled", 1, 2, PYTHON),
    ("the same, data_parallel: replica", 1, 2, PYTHON | {"data_parallel": "replica"}),
    ("no pipeline, ZeRO-2, fast, replica", 1, 2, {"type": "fast", "data_parallel": "replica"}),
)


def main() -> None:
    for name, stages, zero_stage, writer in CASES:
        with tempfile.TemporaryDirectory() as folder:
            job = {"folder": folder, "stages": stages, "zero_stage": zero_stage, "writer": writer}
            said = run_ranks("tests.benchmarks.engine_writers_rank", 2, job)
        print(f"{name}\n  {said[0]}")


if __name__ == "__main__":
    main()
