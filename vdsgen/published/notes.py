"""What a row's notes say in words: sizes without a column, and how its figures were read."""

from __future__ import annotations

import re
from typing import NamedTuple

from vdsgen.published.row import Row


class Facts(NamedTuple):
    """Facts in the notes, None or False where they say nothing."""

    context_parallel: int
    virtual_stages: int
    """Parts of the model on each pipeline stage (arXiv 2104.04473, section 2.2)."""
    vocab: int | None
    ffn: int | None
    kv_heads: int | None
    stage: int | None
    """Index of the pipeline stage that was measured, counted from 0."""
    micro_batches: int | None
    """Of one pipeline in one step."""
    first_iteration: bool
    """Memory was read after the first step."""
    last_rank: bool
    """Memory is the last pipeline stage's."""
    steady: bool
    """Memory at rest, between steps."""
    ceiling: bool
    """Memory is at most this: something else decided the peak that was read."""
    bound: bool
    """Memory is what somebody says is needed, not a reading."""
    hardware_flops: bool
    """FLOP rates count recomputation."""
    per_gpu: bool
    """Samples a second are one GPU's."""
    compiled: bool
    gpus_disagree: bool
    """The source's GPU count and its degrees of parallelism do not fit together."""
    user_report: bool
    assumed_checkpointing: bool
    """The row's grad_ckpt is a default that the source does not restate."""
    unsteady: bool
    """The source itself warns that its step times vary much."""
    toy: bool
    """A model for tests, whose kernels are too small to keep a GPU busy."""
    pixels: float | None
    """Area of a frame, where the notes give it and the columns do not."""


def facts_of(row: Row) -> Facts:
    """The facts of one row's notes, its table's name included."""
    text = f"{row.table}; {row.notes}"
    low = text.lower()
    steady = "steady state" in low and "not a peak" in low
    return Facts(
        context_parallel=_count(r"\bcp\s*=\s*(\d+)", low) or 1,
        virtual_stages=_count(r"virtual pipeline\s*=\s*(\d+)", low) or 1,
        vocab=_vocab(low),
        ffn=_count(r"\bffn\s*=\s*(\d+)", low),
        kv_heads=_count(r"kv groups\s*=\s*(\d+)", low),
        stage=_count(r"pipeline stage (\d+) of", low),
        micro_batches=_count(r"micro-batches(?: per pipeline)?\s*=\s*(\d+)", low),
        first_iteration=re.search(r"after iteration 1\b", low) is not None,
        last_rank="last rank only" in low,
        steady=steady,
        ceiling="ceiling" in low and not steady,
        bound=any(word in row.notes.lower() for word in _BOUNDS),
        hardware_flops="hardware flops" in low or "hw flops" in low,
        per_gpu="per gpu" in low,
        compiled="compile" in low and "compile off" not in low,
        gpus_disagree="does not equal tp*pp*dp" in low or "source inconsistency" in low,
        user_report="user report" in low,
        assumed_checkpointing=re.search(r"grad_ckpt[^;]*not restated", low) is not None,
        unsteady=re.search(r"numbers vary \+/-\d+%", low) is not None,
        toy="toy model" in low,
        pixels=_pixels(low),
    )


_BOUNDS = ("bound claim", "bound:", "requirement", "requires")
"""Words of notes about memory that nobody read off a GPU."""


def _count(pattern: str, text: str) -> int | None:
    """A number of at most nine digits."""
    found = re.search(pattern, text)
    return int(found[1]) if found is not None and len(found[1]) < 10 else None


def _pixels(text: str) -> float | None:
    """`~0.23 MP`."""
    found = re.search(r"(\d{1,3}(?:\.\d{1,4})?) mp\b", text)
    return None if found is None else float(found[1]) * 1e6


def _vocab(text: str) -> int | None:
    """`vocab 250k`, `vocab=50257`, `vocab 128256 untied`."""
    found = re.search(r"\bvocab\s*=?\s*(\d{3,7})(k?)\b", text)
    return None if found is None else int(found[1]) * (1000 if found[2] else 1)
