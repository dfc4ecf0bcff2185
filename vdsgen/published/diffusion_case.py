"""A row about a diffusion transformer of the catalogue, expressed: its profile, its clip and its trainer."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from vdsgen.cost.settings import Settings
from vdsgen.published.notes import Facts
from vdsgen.published.reasons import CannotExpressError
from vdsgen.published.row import Row
from vdsgen.published.trainers import Trainer, trainer_of
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.plan import Offload
from vdsgen.spec.profile import ModelProfile

DEFAULT_RANK = 16
"""Of adapters where a row does not say: peft's examples for diffusers."""
OPTIONAL_WORDS = frozenset({"t2v", "video"})
"""Words of catalogue names that sources leave out."""
BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default of reduce_bucket_size and allgather_bucket_size."""


class DiffusionCase(NamedTuple):
    """What the cost functions are asked about one row."""

    profile: ModelProfile
    geometry: Geometry
    settings: Settings
    trainer: Trainer | None
    """None: DeepSpeed (settings.zero_stage)."""
    assumes_checkpointing: bool
    """The row does not say so, and without it would not fit."""


def express_diffusion(row: Row, facts: Facts) -> DiffusionCase:
    """Raises CannotExpressError with what the row lacks, or what has no counterpart."""
    from vdsgen.catalog.load import pretrained
    from vdsgen.catalog.profiles import catalog_profile

    name = catalogue_name(row.model, list(pretrained()))
    if name is None:
        raise CannotExpressError(f"the catalogue has no {row.model}" if row.model else "no model")
    if facts.context_parallel > 1 or (row.whole("tp") or 1) > 1 or (row.whole("pp") or 1) > 1:
        raise CannotExpressError("one sample of a diffusion model shared by several GPUs")
    rank = _rank(row)
    settings = _settings(row)
    entry = pretrained()[name]
    frames, height, width = _clip(row, facts, entry.spatial_factor * entry.spatial_patch)
    mixed = "mixed" in row.precision.lower()
    trainer = None if settings.zero_stage else trainer_of(row, rank is not None)
    try:
        profile = catalog_profile(
            name,
            variant="full" if rank is None else "lora",
            rank=rank or DEFAULT_RANK,
            mixed=mixed and trainer is not None,  # DeepSpeed's engine casts the weights themselves
        )
    except OSError:
        raise CannotExpressError(f"the layers of {name} are not traced") from None
    return DiffusionCase(
        profile=profile,
        geometry=entry.geometry(frames, height, width),
        settings=settings,
        trainer=trainer,
        assumes_checkpointing=not row.grad_ckpt,
    )


def catalogue_name(model: str, known: list[str]) -> str | None:
    """The catalogue's name of a model as sources write it: all of its letters and digits in a row, with or
    without the words that sources leave out."""
    letters = re.sub(r"[^a-z0-9]", "", model.lower())
    for name in known:
        words = name.split("-")
        short = [word for word in words if word not in OPTIONAL_WORDS]
        forms = {re.sub(r"[^a-z0-9]", "", "".join(form)) for form in (words, short)}
        if any(form in letters for form in forms):
            return name
    return None


def _rank(row: Row) -> int | None:
    """Rank of the adapters; None where every weight trains."""
    name = row.trainable.lower()
    if name in ("", "full"):
        return None
    found = re.match(r"lora(?: r(\d{1,4})\b)?", name)
    if found is None:
        raise CannotExpressError(f"trainable: {row.trainable}")
    return int(found[1] or DEFAULT_RANK) or DEFAULT_RANK


def _clip(row: Row, facts: Facts, edge: int) -> tuple[int, int, int]:
    """Frames, height and width in pixels; an area that the notes give is taken for a square."""
    frames = row.whole("frames") or 1
    height, width = row.whole("height"), row.whole("width")
    if height is not None and width is not None:
        return frames, height, width
    if facts.pixels is not None and row.whole("frames") is not None:
        side = max(edge, round(math.sqrt(facts.pixels) / edge) * edge)
        return frames, side, side
    raise CannotExpressError("no height and width")


def _settings(row: Row) -> Settings:
    micro = row.whole("micro_batch")
    if micro is None:
        raise CannotExpressError("no micro_batch")
    gpus = row.whole("gpus")
    data = row.whole("dp") or gpus or 1
    batch = row.whole("global_batch") or micro * data
    zero = row.whole("zero_stage") or 0
    precision = row.precision.lower()
    if not precision:
        raise CannotExpressError("no precision")
    dtype: Dtype = "fp16" if precision.startswith("fp16") else "bf16"
    offload = row.offload.lower()
    to_host: Offload = "cpu" if "optimizer" in offload or "cpu offload" in offload else "none"
    parameters: Offload = "cpu" if zero == 3 and ("param" in offload or "cpu offload" in offload) else "none"
    return Settings(
        pipeline_parallel_size=1,
        data_parallel_size=data,
        zero_stage=zero,
        micro_batch_size=micro,
        gradient_accumulation_steps=max(1, batch // (micro * data)),
        activation_checkpoint_interval=_interval(row),
        dtype=dtype,
        gradient_accumulation_dtype=dtype,
        reduce_bucket_elements=BUCKET_ELEMENTS,
        allgather_bucket_elements=BUCKET_ELEMENTS,
        offload_optimizer=to_host,
        offload_parameters=parameters,
    )


def _interval(row: Row) -> int:
    """Blocks a segment."""
    name = row.grad_ckpt.lower()
    if name == "none":
        return 0
    if name == "full":
        return 1
    if not name:
        return 0  # until it turns out not to fit: see diffusion_predictions.py
    found = re.fullmatch(r"full, (\d{1,3})-block segments", name)
    if found is None:
        raise CannotExpressError(f"checkpointing: {row.grad_ckpt}")
    return max(1, int(found[1]))
