"""Time of `vdsgen diff` of a pair, as whole processes: `python -m tests.benchmarks.diff_time`.

The bar is 0.5 s a pair on two idle cores. Processor time is shown besides: it is what a busy machine measures
alike.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = 11
RENDERED = ROOT / "examples" / "rendered"


def cases(folder: Path) -> dict[str, list[Path]]:
    """A name -> the two sides, of each kind that takes time of its own."""
    planned = RENDERED / "article-1.2b@four-16gb"
    edited = folder / "edited"
    shutil.copytree(planned, edited)
    config = json.loads((edited / "ds_config.json").read_text())
    config["zero_optimization"] |= {"stage": 1, "offload_optimizer": {"device": "cpu"}}
    (edited / "ds_config.json").write_text(json.dumps(config))
    return {
        "two rendered directories": [planned, RENDERED / "article-1.2b-pinned@four-16gb"],
        "one edited, predicted anew": [planned, edited],
        "two plain DeepSpeed JSON files": [
            Path(shutil.copy(planned / "ds_config.json", folder / "a.json")),
            Path(shutil.copy(edited / "ds_config.json", folder / "b.json")),
        ],
    }


def main() -> None:
    """One line a case: least, median and most milliseconds, and the processor's."""
    with tempfile.TemporaryDirectory() as folder:
        for name, sides in cases(Path(folder)).items():
            walls, processors = [], []
            for _ in range(RUNS):
                start, before = time.perf_counter(), os.times()
                subprocess.run(
                    [sys.executable, "-m", "vdsgen", "diff", *map(str, sides)],
                    cwd=ROOT, stdout=subprocess.DEVNULL, check=False,
                )  # fmt: skip
                after = os.times()
                walls.append(time.perf_counter() - start)
                processors.append(
                    after.children_user
                    + after.children_system
                    - before.children_user
                    - before.children_system
                )
            least, median, most = (1000 * pick(walls) for pick in (min, statistics.median, max))
            processor = 1000 * statistics.median(processors)
            print(
                f"{name:32} least {least:4.0f} ms, median {median:4.0f} ms, most {most:4.0f} ms; "
                f"processor {processor:4.0f} ms"
            )


if __name__ == "__main__":
    main()
