"""What was rendered and printed for a shell, run by one with stand-ins for every program: hostile names are
words, never commands."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from tests.campaigns.fuzzing.values import CANARY

STAND_IN = """#!{sh}
for word in "$0" "$@"; do printf '%s\\0' "$word"; done >>"$RECORD"
printf '\\1' >>"$RECORD"
echo node-1
"""
"""Says a name, since `scontrol show hostnames` is asked for one."""
PROGRAMS = ("deepspeed", "env", "srun", "sbatch", "scancel", "scontrol", "python", "ssh", "sleep", "mv", "rm")
REAL = ("dirname", "grep", "cat")


def make_stand_ins(folder: Path) -> None:
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_text(STAND_IN.format(sh="/bin/sh"))
        (folder / name).chmod(0o755)
    for name in REAL:
        source = next(path for path in (Path("/usr/bin", name), Path("/bin", name)) if path.exists())
        (folder / name).symlink_to(source)
    # A canary is made by this one: a shell that obeys a name finds it.
    (folder / "touch").symlink_to("/usr/bin/touch")


def run_script(script: Path, arguments: tuple[str, ...], stand_ins: Path, work: Path) -> list[list[str]]:
    """The commands that the script came to."""
    return _recorded(["/bin/bash", str(script), *arguments], stand_ins, work)


def run_line(line: str, stand_ins: Path, work: Path) -> list[list[str]]:
    """The commands that a shell makes of a printed line."""
    return _recorded(["/bin/bash", "-c", line], stand_ins, work)


def _recorded(argv: list[str], stand_ins: Path, work: Path) -> list[list[str]]:
    record = stand_ins.parent / "record"
    record.write_bytes(b"")
    subprocess.run(
        argv, cwd=work, capture_output=True, timeout=30, check=False,
        env={"PATH": str(stand_ins), "RECORD": str(record), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n"},
    )  # fmt: skip
    calls = record.read_bytes().split(b"\1")[:-1]
    return [[os.fsdecode(word) for word in call.split(b"\0")[:-1]] for call in calls]


def dry_run_problems(printed: str, output: str, stand_ins: Path, work: Path) -> list[str]:
    """Of the lines that `launch --dry-run` printed."""
    problems = []
    whole = os.path.abspath(output)  # noqa: PTH100 - as launching does
    if "\n" in output:  # within quotes: the lines cannot be told apart here, as a shell does
        run_line(printed, stand_ins, work)
        return canaries(work)
    for line in filter(None, printed.split("\n")):
        try:
            words = shlex.split(line)
        except ValueError as error:
            return [f"a printed command cannot be split into words: {error}: {line[:200]!r}"]
        calls = run_line(line, stand_ins, work)
        if line.startswith("# ") and not calls:  # for people
            continue
        remote = words[-1] if "ssh" in words and words[-1].startswith("env ") else None
        if remote is not None:
            calls += run_line(remote, stand_ins, work)
            words += shlex.split(remote)
        if len(calls) != (1 if remote is None else 2):
            problems.append(f"a shell makes {len(calls)} commands of {line[:200]!r}")
        said = [word for call in calls for word in call]
        if not any(word == whole or word.startswith(whole + "/") or f"={whole}/" in word for word in said):
            problems.append(f"the run directory {whole!r} is no word of {said!r}"[:400])
    return problems + canaries(work)


def canaries(*folders: Path) -> list[str]:
    return [
        f"a name was obeyed: {folder / CANARY} is there" for folder in folders if (folder / CANARY).exists()
    ]
