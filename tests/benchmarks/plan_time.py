"""Wall time of `vdsgen plan` and `vdsgen --help`, as whole processes: `python -m tests.benchmarks.plan_time`.

The bar is 0.5 s for both on two idle cores.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = 11
CASES = {
    "--help": ["--help"],
    **{
        f"plan {experiment} on {lab}": [
            "plan", f"examples/experiments/{experiment}.yaml", "--lab", f"examples/labs/{lab}.yaml",
        ]
        for experiment, lab in (
            ("article-1.5b", "four-24gb"),
            ("article-1.2b", "four-16gb"),
            ("article-2.1b", "eight-24gb"),
        )
    },
}  # fmt: skip


def main() -> None:
    """One line a case: least, median and most milliseconds."""
    for name, arguments in CASES.items():
        seconds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "vdsgen", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True
            )
            seconds.append(time.perf_counter() - start)
        least, median, most = (1000 * pick(seconds) for pick in (min, statistics.median, max))
        print(f"{name:40} least {least:4.0f} ms, median {median:4.0f} ms, most {most:4.0f} ms")


if __name__ == "__main__":
    main()
