"""A 14 B model proven at full size: `python -m tests.benchmarks.verify_14b [FOLDER]`.

Plans examples/experiments/vdt-14b.yaml as the planner likes it best, in four pipeline stages, and with
ZeRO-3; runs `vdsgen verify` on each as a process of its own; prints its verdict, its wall time and the most
real memory that it and its workers held. The bars are two minutes and 4 GiB on a laptop's idle processor.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vdsgen.units import GIB

ROOT = Path(__file__).parents[2]
PINS = {
    "as the planner likes it best": (),
    "four pipeline stages": ("constraints.pipeline_parallel_size=4",),
    "ZeRO-3": ("constraints.pipeline_parallel_size=1", "constraints.zero_stage=3"),
}
SECONDS_BAR, GIB_BAR = 120, 4


def vdsgen(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vdsgen", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def main(folder: Path) -> int:
    """Exit code 1 where a bar is missed."""
    missed = False
    for index, (name, pins) in enumerate(PINS.items()):
        out = folder / f"plan-{index}"
        settings = [word for pin in pins for word in ("--set", pin)]
        generated = vdsgen(
            "generate",
            "examples/experiments/vdt-14b.yaml",
            "--lab",
            "examples/labs/sixteen-80gb.yaml",
            *settings,
            "--out",
            str(out),
        )
        assert generated.returncode == 0, generated.stderr
        start = time.perf_counter()
        verified = vdsgen("verify", str(out), "--json")
        seconds = time.perf_counter() - start
        assert verified.returncode in (0, 1), verified.stderr
        found = json.loads(verified.stdout)
        held = found["resident_bytes"] / GIB
        peaks = ", ".join(f"{stage['components']['peak']['ratio']:.3f}" for stage in found["stages"])
        verdict = "within tolerance" if found["within"] else "NOT within tolerance"
        print(f"{name}: {verdict}; peaks, planned / traced: {peaks}; {seconds:.0f} s, {held:.2f} GiB")
        missed |= seconds > SECONDS_BAR or held > GIB_BAR
    return int(missed)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(Path(scratch)))
