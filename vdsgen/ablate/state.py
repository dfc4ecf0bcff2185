"""An ablation's directory: one process at a time works in it, and it survives the end of any of them.

ablation.json      what is measured; another command is refused
plans/NAME/        the rendered directories
runs/NAME/round-N/ the run directories
runs.jsonl         a line when a run starts and when it ends, synced
results.jsonl      a line a plan, made from these
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from vdsgen.ablate.records import Ablation, JournalLine, Result, RunEnded, RunStarted
from vdsgen.errors import VdsgenError
from vdsgen.files import append_line, write_atomically
from vdsgen.render.write import PENDING, write_files

ABLATION, JOURNAL, RESULTS, LOCK = "ablation.json", "runs.jsonl", "results.jsonl", ".lock"
_LINE: TypeAdapter[RunStarted | RunEnded] = TypeAdapter(JournalLine)


class AblationDirectory:
    """Paths and journal of one ablation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def plan(self, name: str) -> Path:
        return self.path / "plans" / name

    def run(self, name: str, round_number: int) -> Path:
        return self.path / "runs" / name / f"round-{round_number}"

    @property
    def results(self) -> Path:
        return self.path / RESULTS

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Until the end, however it comes: the kernel lets go of the lock with the process.

        Raises VdsgenError where another process works in the directory, or it holds something else.
        """
        self._refuse_foreign()
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise VdsgenError(
                    f"another `vdsgen ablate` is at work in {self.path}",
                    remedy="wait for its end, or choose another --out: plans are measured one at a time",
                ) from None
            yield
        finally:
            os.close(descriptor)

    def begin(self, ablation: Ablation, files: Mapping[str, Mapping[str, bytes]]) -> None:
        """Records what is measured and renders its plans; or finds that it is what was measured before.

        `files` holds each plan's rendered directory. Raises VdsgenError with what is different.
        """
        path = self.path / ABLATION
        if path.exists():
            differences = _differences(self.read(), ablation)
            if differences:
                raise VdsgenError(
                    f"{self.path} holds the results of another ablation: {'; '.join(differences)}",
                    remedy="give the command that it was begun with, or choose a new --out",
                )
        else:
            write_atomically(path, (ablation.model_dump_json(indent=2) + "\n").encode())
        for name, content in files.items():
            self._render(name, content)

    def read(self) -> Ablation:
        """Raises VdsgenError where the directory holds no ablation."""
        path = self.path / ABLATION
        try:
            return Ablation.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise VdsgenError(
                f"{self.path} holds no ablation: it has no {ABLATION}",
                remedy="name an --out of `vdsgen ablate`",
            ) from None
        except ValidationError as error:
            raise VdsgenError(f"{path}: {error}", remedy="choose a new --out and measure again") from error

    def append(self, line: RunStarted | RunEnded) -> None:
        """In the file, on the disk, when this returns."""
        append_line(self.path / JOURNAL, line.model_dump_json().encode())

    def journal(self) -> list[RunStarted | RunEnded]:
        """Every whole line."""
        path = self.path / JOURNAL
        found = []
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                found.append(_LINE.validate_json(line))
            except ValidationError:
                continue
        return found

    def write_results(self, results: Sequence[Result]) -> None:
        write_atomically(self.results, _lines(results))

    def _render(self, name: str, content: Mapping[str, bytes]) -> None:
        directory = self.plan(name)
        found = {path.name: path for path in directory.iterdir()} if directory.is_dir() else {}
        changed = [key for key in content if key in found and found[key].read_bytes() != content[key]]
        if changed:
            raise VdsgenError(
                f"{directory} was changed since it was rendered: {', '.join(sorted(changed))}",
                remedy="to measure an edited plan, copy the directory elsewhere and name it in --plans",
            )
        if all(key in found for key in content):
            return
        if all(key in content or key.endswith(PENDING) for key in found):
            # A killed process wrote a part of it.
            shutil.rmtree(directory, ignore_errors=True)
        write_files(directory, content)

    def _refuse_foreign(self) -> None:
        if not self.path.exists() or (self.path / ABLATION).exists():
            return
        if not self.path.is_dir():
            raise VdsgenError(f"{self.path} is a file", remedy="choose another --out")
        foreign = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
        if foreign:
            raise VdsgenError(
                f"{self.path} is not empty and holds no ablation; it holds {', '.join(foreign[:5])}",
                remedy="choose a new or empty directory for --out",
            )


def _lines(specs: Sequence[BaseModel]) -> bytes:
    return b"".join(spec.model_dump_json().encode() + b"\n" for spec in specs)


def _differences(before: Ablation, now: Ablation) -> list[str]:
    """In words; empty where both measure the same."""
    found = []
    for key, what in (
        ("experiment_sha256", "the experiment was changed"),
        ("lab_sha256", "the lab's pool was changed"),
        ("profile_sha256", "the model's layer profile was changed"),
    ):
        if getattr(before, key) != getattr(now, key):
            found.append(what)
    if before.steps != now.steps:
        found.append(f"it measures {before.steps} steps a run, not {now.steps}")
    old, new = ({plan.fingerprint: plan.name for plan in one.plans} for one in (before, now))
    gone, added = sorted(old[key] for key in old.keys() - new), sorted(new[key] for key in new.keys() - old)
    if gone:
        found.append(f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} no longer asked for")
    if added:
        found.append(f"{', '.join(added)} {'is' if len(added) == 1 else 'are'} new")
    if not (gone or added) and list(old.values()) != list(new.values()):
        found.append("the plans are in another order")
    return found
