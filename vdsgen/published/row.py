"""Rows of a file of published measurements: numbers where there are numbers, None where a cell is empty."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vdsgen.errors import InputError, Problem, VdsgenError

COLUMNS = (
    "source_repo_or_paper", "path_or_table", "model", "params_b", "arch", "layers", "hidden", "heads",
    "frames", "height", "width", "seq_len", "precision", "optimizer", "trainable", "grad_ckpt", "offload",
    "zero_stage", "tp", "pp", "dp", "gpus", "gpu_type", "micro_batch", "global_batch", "peak_mem_gb",
    "mem_kind", "sec_per_step", "samples_per_s", "tflops_per_gpu", "notes",
)  # fmt: skip
MOST_BYTES = 64 * 2**20
"""Of a file; the bundled one has 0.3 MB."""
LARGEST = {
    "params_b": 1e5, "layers": 2000, "hidden": 2**17, "heads": 4096, "frames": 1e5, "height": 1e5,
    "width": 1e5, "seq_len": 2**24, "zero_stage": 3, "tp": 1024, "pp": 1024, "dp": 1e6, "gpus": 1e6,
    "micro_batch": 1e5, "global_batch": 1e7, "peak_mem_gb": 1e5, "sec_per_step": 1e7, "samples_per_s": 1e7,
    "tflops_per_gpu": 1e6,
}  # fmt: skip
"""What a cell can sensibly say: more is a slip, and would take for ever to simulate."""
WHOLE = frozenset(LARGEST) - {"params_b", "peak_mem_gb", "sec_per_step", "samples_per_s", "tflops_per_gpu"}


class Row(NamedTuple):
    """One measurement. `line` is its place in the file, the header being line 1 (of one-line records)."""

    line: int
    source: str
    table: str
    model: str
    arch: str
    precision: str
    optimizer: str
    trainable: str
    grad_ckpt: str
    offload: str
    gpu_type: str
    mem_kind: str
    notes: str
    numbers: Mapping[str, float]
    """Cells that hold a number above zero (ZeRO stage 0 is one too), by column."""
    unreadable: tuple[str, ...]
    """Columns whose cell is neither empty nor a number that makes sense."""

    def number(self, column: str) -> float | None:
        return self.numbers.get(column)

    def whole(self, column: str) -> int | None:
        value = self.numbers.get(column)
        return None if value is None else int(value)


def read_rows(path: Path) -> tuple[Row, ...]:
    """All rows of a CSV file with the columns of `COLUMNS`, in any order; others are ignored.

    Raises InputError for a file that is no such table; a bad cell only spoils its row.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _unusable(path, f"has more than {MOST_BYTES // 2**20} MiB")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unusable(path, "is not UTF-8 text") from None
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise _unusable(path, f"lacks the columns {', '.join(missing)}")
        return tuple(_row(index, cells) for index, cells in enumerate(reader, start=2))
    except csv.Error as error:
        raise _unusable(path, f"is no CSV table: {error}") from None


def _unusable(path: Path, what: str) -> InputError:
    remedy = f"give a CSV file with the columns {', '.join(COLUMNS[:4])}, ... {COLUMNS[-1]}"
    return InputError([Problem(f"{what}", file=str(path), remedy=remedy)])


def _row(line: int, cells: Mapping[str, str | None]) -> Row:
    text = {name: (cells.get(name) or "").strip() for name in COLUMNS}
    numbers, unreadable = {}, []
    for name, largest in LARGEST.items():
        if not text[name]:
            continue
        value = _number(text[name])
        sensible = value is not None and (0 < value <= largest or (name == "zero_stage" and value == 0))
        if sensible and value is not None and (name not in WHOLE or value == int(value)):
            numbers[name] = value
        else:
            unreadable.append(name)
    return Row(
        line=line,
        source=text["source_repo_or_paper"],
        table=text["path_or_table"],
        **{name: text[name] for name in _WORDS},
        numbers=numbers,
        unreadable=tuple(unreadable),
    )


_WORDS = (
    "model", "arch", "precision", "optimizer", "trainable", "grad_ckpt", "offload", "gpu_type", "mem_kind",
    "notes",
)  # fmt: skip


def _number(cell: str) -> float | None:
    try:
        value = float(cell.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


BUNDLED = Path(__file__).parent / "data" / "measurements.csv"
"""What comes with the package."""


def selected(rows: Sequence[Row], lines: str | None) -> list[Row]:
    """Rows whose line is in a list such as `2-50,60`; all without one.

    Raises VdsgenError for another text, and where no row is left.
    """
    if lines is None:
        return list(rows)
    wanted: list[range] = []
    for part in lines.split(","):
        found = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", part)
        if found is None:
            raise VdsgenError(
                f"--rows {lines}: {part.strip()!r} is no line and no range", remedy="write 2-50,60"
            )
        wanted.append(range(int(found[1]), int(found[2] or found[1]) + 1))
    chosen = [row for row in rows if any(row.line in part for part in wanted)]
    if not chosen:
        last = rows[-1].line if rows else 1
        raise VdsgenError(f"--rows {lines}: no such rows", remedy=f"the file has the lines 2 to {last}")
    return chosen
