"""The table in docs/verify.md: `python -m tests.benchmarks.verify_table [NAME...]`.

Every example as today's planner renders it, and the 14 B model of examples/experiments/vdt-14b.yaml as the
planner likes it best, in four pipeline stages and with ZeRO-3, each through `vdsgen verify` as a process of
its own. Exits with 1 where a 14 B plan takes over two minutes or holds over 4 GiB: the bars on a laptop's
idle processor. Processor seconds are told beside, since they do not depend on what else runs. NAMEs choose
among the rows.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.update_examples import EXAMPLES, PAIRS
from vdsgen.units import GIB
from vdsgen.verify.figures import TOLERANCES

ROOT = Path(__file__).parents[2]
LARGE = ("vdt-14b", "sixteen-80gb")
PINNED = {
    "vdt-14b": (),
    "vdt-14b in 4 stages": ("constraints.pipeline_parallel_size=4",),
    "vdt-14b, ZeRO-3": ("constraints.pipeline_parallel_size=1", "constraints.zero_stage=3"),
}
SECONDS_BAR, GIB_BAR = 120, 4


def plans() -> dict[str, tuple[tuple[str, str], tuple[str, ...]]]:
    """Row's name -> (experiment, lab), pins."""
    return {
        **{pair[0]: (pair, ()) for pair in PAIRS},
        **{name: (LARGE, pins) for name, pins in PINNED.items()},
    }


class Verified(NamedTuple):
    """What `vdsgen verify --json` printed about a plan, and what it took."""

    found: dict[str, Any]
    wall_seconds: float
    processor_seconds: float

    @property
    def bytes_held(self) -> int:
        return int(self.found["resident_bytes"])


def verified(pair: tuple[str, str], pins: Sequence[str], folder: Path) -> Verified:
    """Plans, renders and verifies."""
    experiment, lab = pair
    planning = [f"{EXAMPLES}/experiments/{experiment}.yaml", "--lab", f"{EXAMPLES}/labs/{lab}.yaml"]
    settings = [word for pin in pins for word in ("--set", pin)]
    vdsgen("generate", *planning, *settings, "--out", str(folder))
    start, before = time.perf_counter(), _processor_seconds()
    answer = vdsgen("verify", str(folder), "--json")
    return Verified(json.loads(answer), time.perf_counter() - start, _processor_seconds() - before)


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def vdsgen(*arguments: str) -> str:
    command = [sys.executable, "-m", "vdsgen", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 1), result.stderr
    return result.stdout


def rows(name: str, one: Verified) -> Iterator[str]:
    """One line a stage: planned over traced, the ones beyond tolerance in bold."""
    took = f"{one.wall_seconds:.0f} s ({one.processor_seconds:.0f}), {one.bytes_held / GIB:.2f} GiB"
    for stage in one.found["stages"]:
        parts = (stage["components"].get(component) for component in TOLERANCES)  # host: where offload is
        cells = [_ratio(part) for part in parts]
        peak = f"{stage['components']['peak']['traced_bytes'] / GIB:.2f}"
        head = [name, str(stage["stage"]), stage["optimizer_class"]]
        yield f"| {' | '.join([*head, *cells, peak, took])} |"
        name = took = ""


def _ratio(part: dict[str, Any] | None) -> str:
    if part is None:
        return "-"
    text = "-" if part["ratio"] is None else f"{part['ratio']:.3f}"
    return text if part["within"] else f"**{text}**"


def main(names: Sequence[str]) -> int:
    head = ("plan", "stage", "engine's class", *TOLERANCES, "traced GiB", "time (processor), memory")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    missed = False
    for name, (pair, pins) in plans().items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            one = verified(pair, pins, Path(scratch) / "plan")
        print("\n".join(rows(name, one)), flush=True)
        missed |= pair == LARGE and (one.wall_seconds > SECONDS_BAR or one.bytes_held > GIB_BAR * GIB)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
