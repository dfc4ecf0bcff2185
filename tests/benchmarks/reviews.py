"""How long reviews take: a pair, and trees of 200 directories, compared and checked, in a git repository.

    python -m tests.benchmarks.reviews [--directories N]

Each command is a process of its own, as a person or CI starts it; the middle of three is shown. Where others
use the machine too, processor seconds say what the command itself takes.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cli.trees import commit, repository
from tests.update_examples import EXAMPLES
from vdsgen.render.render import render_plan
from vdsgen.render.write import write_files
from vdsgen.review.directory import RenderedDirectory, read_directory
from vdsgen.spec.canonical import sha256_of

TIMES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directories", type=int, default=200)
    number = parser.parse_args().directories
    folder = Path(tempfile.mkdtemp())
    try:
        measure(folder, number)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, number: int) -> None:
    examples = [read_directory(path) for path in sorted((EXAMPLES / "rendered").iterdir())]
    root = repository(folder / "repository")
    for rate, message in ((None, "before"), (3e-4, "after")):
        for index in range(number):
            write(root / f"configs/{index:03d}", examples[index % len(examples)], index, rate)
        commit(root, message)
    one = f"configs/{0:03d}"
    print(f"{number} directories, all of which changed; middle of {TIMES}")
    print(f"  {'':32} {'seconds':>8} {'least':>7} {'processor seconds':>18}")
    report("diff of a pair", root, "diff", f"HEAD~1:{one}", one)
    report("diff of two revisions", root, "diff", "HEAD~1..HEAD")
    report("the same, as Markdown", root, "diff", "HEAD~1..HEAD", "--format", "markdown")
    report("diff against the working tree", root, "diff", "HEAD~1")
    fresh = root / "fresh"
    for index in range(number):
        shutil.copytree(EXAMPLES / "rendered/cpu-demo@cpu-demo", fresh / f"{index:03d}")
    report("check, equal inputs", root, "check", "fresh")


def write(path: Path, example: RenderedDirectory, index: int, rate: float | None) -> None:
    """The example under another seed, and with another learning rate where one is given."""
    training = example.experiment.training.model_copy(update={"seed": index})
    if rate is not None:
        optimizer = training.optimizer.model_copy(update={"learning_rate": rate})
        training = training.model_copy(update={"optimizer": optimizer})
    experiment = example.experiment.model_copy(update={"training": training})
    inputs = example.plan.inputs.model_copy(update={"experiment_sha256": sha256_of(experiment)})
    write_files(path, render_plan(example.plan.model_copy(update={"inputs": inputs}), experiment))


def report(what: str, root: Path, *arguments: str) -> None:
    taken, used = [], []
    for _ in range(TIMES):
        began, before = time.perf_counter(), processor_seconds()
        subprocess.run(
            [sys.executable, "-m", "vdsgen", *arguments], cwd=root, stdout=subprocess.DEVNULL, check=False
        )
        taken.append(time.perf_counter() - began)
        used.append(processor_seconds() - before)
    middle, least = statistics.median(taken), min(taken)
    print(f"  {what:32} {middle:8.2f} {least:7.2f} {statistics.median(used):18.2f}", flush=True)


def processor_seconds() -> float:
    """Of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
