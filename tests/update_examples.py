"""Renders the committed examples again:  python -m tests.update_examples

Each goes to examples/rendered/EXPERIMENT@LAB; a test compares all of them with what is committed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from vdsgen.catalog.resolve import resolve_experiment
from vdsgen.cli.profiles import find_profile
from vdsgen.planner.plan import make_plan
from vdsgen.render.render import render_plan
from vdsgen.render.write import write_files
from vdsgen.spec.load import load_experiment, load_lab

EXAMPLES = Path(__file__).parents[1] / "examples"
PAIRS = (
    ("article-1.2b", "four-16gb"),
    ("article-1.2b-pinned", "four-16gb"),
    ("article-1.5b", "four-24gb"),
    ("article-1.5b-pinned", "four-24gb"),
    ("article-2.1b", "eight-24gb"),
    ("article-2.1b-pinned", "eight-24gb"),
    ("cpu-demo", "cpu-demo"),
    ("wan-1.3b", "four-24gb"),
    ("wan-14b-lora", "four-24gb"),
)
"""Every experiment but those below, on the lab that it is meant for."""
NOT_RENDERED = (
    ("vdt-14b", "sixteen-80gb"),
    ("one-gpu-1.5b", "one-16gb"),
    ("cpu-wan", "cpu-demo"),
    ("cpu-overfit", "cpu-demo"),
    ("article-1.5b", "mixed"),
    ("article-1.5b", "shared-node"),
    ("article-1.5b", "two-hosts"),
)
"""Planned where they are used: README.md, `python -m tests.benchmarks.verify_table`, docs/offload.md,
`python -m tests.benchmarks.convergence`, `python -m tests.update_docs`."""


def rendered_directory(experiment: str, lab: str) -> Path:
    return EXAMPLES / "rendered" / f"{experiment}@{lab}"


def render_example(experiment: str, lab: str) -> dict[str, bytes]:
    """What `vdsgen generate` writes for one pair."""
    resolved = resolve_experiment(load_experiment(EXAMPLES / "experiments" / f"{experiment}.yaml"))
    (pool,) = load_lab(EXAMPLES / "labs" / f"{lab}.yaml").pools
    return render_plan(make_plan(resolved, pool, find_profile(resolved)), resolved)


def main() -> None:
    wanted = {rendered_directory(*pair) for pair in PAIRS}
    for directory in (EXAMPLES / "rendered").iterdir():
        if directory.is_dir() and directory not in wanted:
            shutil.rmtree(directory)
            print(f"removed {directory.relative_to(EXAMPLES)}")
    for pair in PAIRS:
        directory = rendered_directory(*pair)
        before = {path.name: path.read_bytes() for path in directory.glob("*")} if directory.exists() else {}
        files = render_example(*pair)
        write_files(directory, files)
        changed = [name for name, content in files.items() if before.get(name) != content]
        print(f"{directory.relative_to(EXAMPLES)}: {', '.join(changed) or 'unchanged'}")


if __name__ == "__main__":
    main()
