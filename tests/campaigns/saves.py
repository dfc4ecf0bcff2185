"""Checkpoints that are broken on purpose, while they are written and afterwards: the last good one must be
found, and the bad one named.

    python -m tests.campaigns.saves [--seed N] [--resumes N]

As root, full disks are file systems of a few hundred KiB (tmpfs); else the kernel's limit on a file's size.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tests.campaigns.figures import write
from tests.forks.start import start
from tests.model.training import render_tiny, train, write_clips
from vdsgen.errors import VdsgenError
from vdsgen.model import soundness
from vdsgen.model.metrics import read_metrics
from vdsgen.spec.checkpoints import CHECKPOINTS, RECORD
from vdsgen.spec.training import Saving

COMMAND = "python -m tests.campaigns.saves"
STEPS = 6
LAST, BEFORE = 4, 2
"""Steps of the newest checkpoint of the run that is broken, and of the one before."""
LATEST = "latest"


class Damage:
    """Breaks a checkpoint's folder in one way; returns the name of what it broke."""

    def __init__(self, random_numbers: random.Random) -> None:
        self._random = random_numbers

    def _file(self, folder: Path) -> Path:
        return self._random.choice(sorted(path for path in folder.iterdir() if path.name != RECORD))

    def truncated_file(self, folder: Path) -> str:
        return self._truncate(self._file(folder))

    def truncated_record(self, folder: Path) -> str:
        return self._truncate(folder / RECORD)

    def _truncate(self, path: Path) -> str:
        os.truncate(path, self._random.randrange(path.stat().st_size))
        return path.name

    def flipped_bit(self, folder: Path) -> str:
        return self._flip(self._file(folder))

    def flipped_bit_of_the_record(self, folder: Path) -> str:
        return self._flip(folder / RECORD)

    def _flip(self, path: Path) -> str:
        data = bytearray(path.read_bytes())
        data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        path.write_bytes(bytes(data))
        return path.name

    def missing_file(self, folder: Path) -> str:
        path = self._file(folder)
        path.unlink()
        return path.name

    def missing_record(self, folder: Path) -> str:
        (folder / RECORD).unlink()
        return RECORD

    def garbage_record(self, folder: Path) -> str:
        (folder / RECORD).write_bytes(self._random.randbytes(self._random.randrange(2000)))
        return RECORD

    def latest_garbage(self, folder: Path) -> str:
        (folder.parent / LATEST).write_bytes(self._random.randbytes(20))
        return LATEST

    def latest_missing(self, folder: Path) -> str:
        (folder.parent / LATEST).unlink()
        return LATEST


COUNTS = {
    "truncated_file": 80,
    "flipped_bit": 120,
    "missing_file": 20,
    "truncated_record": 40,
    "flipped_bit_of_the_record": 120,
    "garbage_record": 20,
    "missing_record": 1,
    "latest_garbage": 10,
    "latest_missing": 1,
}
WORDS = {
    "truncated_file": "a file cut off at a random length",
    "flipped_bit": "a random bit of a file flipped",
    "missing_file": "a file missing",
    "truncated_record": "`complete.json` cut off",
    "flipped_bit_of_the_record": "a random bit of `complete.json` flipped",
    "garbage_record": "`complete.json` full of random bytes",
    "missing_record": "`complete.json` missing",
    "latest_garbage": "`latest` full of random bytes",
    "latest_missing": "`latest` missing",
    "killed_waiting": "killed at each thing that a save does to a file",
    "killed_beside": "the same, written beside training",
    "killed_within_a_write": "killed within a write",
    "full_disk": "disk full while saving",
}


@contextlib.contextmanager
def one_rank() -> Iterator[None]:
    """Finding the last good checkpoint, as if there were one rank."""
    alone = {
        "dist": SimpleNamespace(get_world_size=lambda: 1, get_rank=lambda: 0),
        "known_to_all": lambda find: find(),
        "everybodys": lambda answer: [answer()],
    }
    with contextlib.ExitStack() as stack:
        for name, stand_in in alone.items():
            stack.enter_context(mock.patch.object(soundness, name, stand_in))
        yield


def found_in(run: Path) -> tuple[int | None, str]:
    """The step of the last good checkpoint, and what is said on the way."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), one_rank():
        try:
            step = soundness.last_sound(run)[1].step
        except VdsgenError as error:
            return None, said.getvalue() + str(error)
    return step, said.getvalue()


def is_harmless(kind: str, run: Path, untouched: Path) -> bool:
    """`latest` is for people and for DeepSpeed's own tools: finding looks at the checkpoints. And a record
    that still says the same, such as with another white space, is the same record."""
    if kind.startswith("latest"):
        return True
    if kind != "flipped_bit_of_the_record":
        return False
    name = Path(CHECKPOINTS) / f"step-{LAST:08d}" / RECORD
    try:
        return bool(json.loads((run / name).read_bytes()) == json.loads((untouched / name).read_bytes()))
    except ValueError:
        return False


def broken_afterwards(base: Path, folder: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Every kind of damage, as often as COUNTS says, each to a copy of the run's newest checkpoint."""
    damage, found = Damage(random.Random(seed)), {}
    for kind, count in COUNTS.items():
        lost: list[str] = []
        harmless = 0
        for number in range(count):
            run = folder / "broken"
            shutil.copytree(base, run)
            name = getattr(damage, kind)(run / CHECKPOINTS / f"step-{LAST:08d}")
            step, said = found_in(run)
            if is_harmless(kind, run, base):
                harmless += 1
                good = step == LAST
            else:
                good = step == BEFORE and f"step-{LAST:08d}" in said and name in said
            if not good:
                lost.append(f"{kind} {number} ({name}): found step {step}; {said}")
            shutil.rmtree(run)
        found[kind] = {"injected": count, "harmless": harmless, "lost": lost}
    return found


def interrupted(folder: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Faults while a real engine saves: see tests/campaigns/saving_process.py."""
    numbers = random.Random(seed)
    limits = [numbers.randrange(1, 1_400_000) for _ in range(40)]
    faults: list[dict[str, Any]] = [
        {"kind": "killed_within_a_write", "asynchronous": bool(at % 2), "file_limit": limit, "dies": True}
        for at, limit in enumerate(limits)
    ]
    with small_disk(folder) as disk:
        for at in range(40):
            fault: dict[str, Any] = {"kind": "full_disk", "asynchronous": bool(at % 2)}
            size = numbers.randrange(4096, 1_800_000)
            fault |= {"disk_bytes": size} if disk else {"file_limit": size, "dies": False}
            faults.append(fault)
        (folder / "interrupted").mkdir()
        job = {"faults": faults, "folder": str(folder / "interrupted"), "disk": str(disk)}
        with tempfile.TemporaryFile("w+") as output:
            process = start(
                "tests.campaigns.saving_process",
                environment={"DS_ACCELERATOR": "cpu"},
                stdin=json.dumps(job),
                stdout=output,
            )
            code = process.wait(1800)
            output.seek(0)
            text = output.read()
    assert code == 0, text[-4000:]
    found: dict[str, dict[str, Any]] = {}
    for one in json.loads(text.splitlines()[-1])["results"]:
        fault = one["fault"]
        kind = fault.get("kind", "killed_beside" if fault["asynchronous"] else "killed_waiting")
        row = found.setdefault(kind, {"injected": 0, "harmless": 0, "lost": []})
        row["injected"] += 1
        # A limit or a disk that was large enough after all.
        row["harmless"] += one["code"] == 0
        if not _survived(one):
            row["lost"].append(json.dumps(one))
    return found


def _survived(one: dict[str, Any]) -> bool:
    """The new checkpoint where it is whole, else the one before, and nothing unsaid; and saving goes on."""
    complete = one["step"] == 2 and (one["code"] == 0 or not one["half_written"])
    before = one["step"] == 1 and one["code"] != 0 and one["named"] == one["half_written"]
    return bool(
        (complete or before) and one["latest_is_complete"] and one["others_named"] and one["saved_again"]
    )


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system that can be made as small as wanted; None without the rights to."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(disk)], check=False, capture_output=True
    )
    try:
        yield disk if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(disk)], check=True)


RESUMED: Sequence[str] = (
    "flipped_bit", "truncated_file", "missing_file", "flipped_bit_of_the_record", "garbage_record",
    "latest_garbage",
)  # fmt: skip


def resumed(plan: Path, base: Path, folder: Path, seed: int, count: int) -> dict[str, Any]:
    """Real ranks go on from a broken run, and come to the losses of the run that was not broken."""
    damage = Damage(random.Random(seed + 1))
    straight = [(line["step"], line["loss"]) for line in read_metrics(base)]
    lost = []
    for number in range(count):
        kind, run = RESUMED[number % len(RESUMED)], folder / f"resumed-{number}"
        shutil.copytree(base, run)
        breaks: Callable[[Path], str] = getattr(damage, kind)
        name = breaks(run / CHECKPOINTS / f"step-{LAST:08d}")
        ended = train(plan, run, steps=STEPS, resume=True)
        losses = [(line["step"], line["loss"]) for line in read_metrics(run)]
        named = is_harmless(kind, run, base) or (f"step-{LAST:08d}" in ended.shown and name in ended.shown)
        if ended.code or losses != straight or not named:
            lost.append(f"{kind} ({name}): exit code {ended.code}, {losses} for {straight}: {ended.shown}")
        shutil.rmtree(run)
    return {"injected": count, "lost": lost}


def run_campaign(folder: Path, seed: int, resumes: int) -> dict[str, Any]:
    began = time.monotonic()
    write_clips(folder / "clips")
    training = {"steps": STEPS, "saving": Saving(every_steps=2, keep=3)}
    plan = render_tiny(folder / "plan", folder / "clips", data=1, accumulation=4, training=training)
    run = folder / "run"
    ended = train(plan, run)
    assert ended.code == 0, ended.shown
    # The last step's checkpoint goes: what is left to train shows that the right one was read.
    shutil.rmtree(run / CHECKPOINTS / f"step-{STEPS:08d}")
    kinds = broken_afterwards(run, folder, seed) | interrupted(folder, seed)
    again = resumed(plan, run, folder, seed, resumes)
    return {
        "seed": seed,
        "kinds": kinds,
        "resumed": again,
        "injected": sum(row["injected"] for row in kinds.values()) + again["injected"],
        "lost": sum(len(row["lost"]) for row in kinds.values()) + len(again["lost"]),
        "seconds": round(time.monotonic() - began),
    }


SUMMARY = """\
{injected} faults; where something was lost: {lost}. The last good checkpoint had to be found and the bad one
named with its file, and the next save had to go through.
"""
HARMLESS = """\
Harmless: `latest`, which finding does not rely on; a record that still says the same; a disk or a limit that
was large enough. Files are those of real engines: of two pipeline stages (ZeRO-1, fp32) where they are broken
afterwards, of one rank (ZeRO-1, bf16, averaged weights) where saving is interrupted.
"""


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 110, break_on_hyphens=False)


def section(figures: dict[str, Any]) -> str:
    rows = [
        f"| {WORDS[kind]} | {row['injected']} | {row['harmless'] or ''} | {len(row['lost'])} |"
        for kind, row in figures["kinds"].items()
    ]
    again = figures["resumed"]
    return "\n".join(
        [
            "## Checkpoints",
            "",
            _paragraph(SUMMARY.format(injected=figures["injected"], lost=figures["lost"])),
            "",
            "| fault | injected | harmless | lost |",
            "|---|---|---|---|",
            *rows,
            f"| broken, then resumed by two ranks, to the same losses | {again['injected']} | | "
            f"{len(again['lost'])} |",
            "",
            _paragraph(HARMLESS),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resumes", type=int, default=6)
    parser.add_argument("--no-figures", action="store_true", help="write no figures")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = run_campaign(Path(folder), asked.seed, asked.resumes)
    for row in (*figures["kinds"].values(), figures["resumed"]):
        for sentence in row["lost"]:
            print("LOST", sentence)
    print(section(figures))
    if not asked.no_figures:
        write("saves", COMMAND, figures)
    return 1 if figures["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
