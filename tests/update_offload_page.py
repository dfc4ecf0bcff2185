"""The plan in docs/offload.md, as today's planner prints it: `python -m tests.update_offload_page`."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from vdsgen.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "offload.md"
BEGIN, END = "predicted, not measured)\n\n", "\nWith `--set constraints.offload_optimizer=none`"
COMMAND = ["plan", "examples/experiments/one-gpu-1.5b.yaml", "--lab", "examples/labs/one-16gb.yaml"]


def page() -> str:
    """The page with the plan up to its reasons."""
    inputs = [str(ROOT / word) if word.startswith("examples") else word for word in COMMAND]
    printed = CliRunner().invoke(cli, inputs)
    assert printed.exit_code == 0, printed.output
    shown = printed.stdout.split("\nWhy\n")[0].rstrip().splitlines()
    block = "".join(f"    {line}".rstrip() + "\n" for line in shown)
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + block + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page())
