"""A small catalogue model in every engine mode, as cases to trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tests.cost.engine_cases import case_of, is_allowed
from tests.forks.start import free_port, start
from vdsgen.catalog.load import models
from vdsgen.cost.settings import Settings
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.dtypes import Dtype
from vdsgen.verify.figures import StageTrace

MODEL = models()["vdt-demo"].sizes.model_copy(update={"depth": 4})
GEOMETRY = Geometry(frames=5, patches=24, text_tokens=0, latent_height=4, latent_width=6)
PARTITIONS = {1: (0, 6), 2: (0, 3, 6), 4: (0, 2, 3, 4, 6)}
BUCKET_ELEMENTS = 500_000
"""A block has 0.6 M parameters."""
PRECISIONS: tuple[tuple[Dtype, Dtype], ...] = (
    ("fp32", "fp32"),
    ("bf16", "fp32"),
    ("fp16", "fp16"),
)
"""What is planned: sums of bf16 in bf16 are not exact. Without ZeRO, bf16 can have no others."""
INTERVALS = (0, 1, 3)
SECONDS = 500


def settings_of(
    stages: int,
    data: int,
    zero_stage: int,
    precision: tuple[Dtype, Dtype],
    interval: int,
    accumulation: int | None = None,
) -> Settings:
    return Settings(
        pipeline_parallel_size=stages,
        data_parallel_size=data,
        zero_stage=zero_stage,
        micro_batch_size=2,
        gradient_accumulation_steps=accumulation or stages + 1,
        activation_checkpoint_interval=interval,
        dtype=precision[0],
        gradient_accumulation_dtype=precision[1],
        reduce_bucket_elements=BUCKET_ELEMENTS,
        allgather_bucket_elements=BUCKET_ELEMENTS,
    )


def every_mode(stages: int) -> list[Settings]:
    """ZeRO stage x precision, the checkpoint intervals taking turns; and modes that checkpoint some of their
    layers alone, keep products, and pack what they keep."""
    found: list[Settings] = []
    for zero_stage in range(4 if stages == 1 else 2):
        for dtype, sums in PRECISIONS:
            precision = (dtype, sums if zero_stage else dtype)
            settings = settings_of(stages, 2, zero_stage, precision, INTERVALS[(len(found) + zero_stage) % 3])
            assert is_allowed(settings)
            found.append(settings)
    if stages < 4:  # in four stages one has but one layer
        zero_stage = 3 if stages == 1 else 1
        base = settings_of(stages, 2, zero_stage, ("bf16", "fp32"), 1)
        found.append(base.with_interval(1, 3 - stages))
        kept = base.with_interval(1, 0, 4 - stages)
        found += [kept, kept._replace(activation_compression="int8")]
    return found


def as_case(settings: Settings, stage: int) -> dict[str, Any]:
    config = case_of(settings)["config"]
    micro_batches = settings.micro_batch_size * settings.gradient_accumulation_steps
    config["train_batch_size"] = micro_batches * settings.data_parallel_size
    config["pipeline"] = {
        "stages": settings.pipeline_parallel_size,
        "partition": list(PARTITIONS[settings.pipeline_parallel_size]),
        "activation_checkpoint_interval": settings.activation_checkpoint_interval,
        "use_reentrant": False,
        "offload_activations": settings.offload_activations,
        "plain_layers": list(settings.stage_plain_layers),
        "selective_layers": list(settings.stage_selective_layers),
        "compress_activations": settings.activation_compression,
    }
    places = {"offload_optimizer": settings.offload_optimizer, "offload_param": settings.offload_parameters}
    config["zero_optimization"] |= {
        key: {"device": place} for key, place in places.items() if place != "none"
    }
    if settings.tensor_parallel_size > 1:
        config["pipeline"] |= {
            "tensor_parallel_size": settings.tensor_parallel_size,
            "pipe_partitioned": False,
            "grad_partitioned": False,
        }
    return {"config": config, "model": MODEL.model_dump(), "geometry": GEOMETRY._asdict(), "stage": stage}


def trace(
    kind: str, ranks: Sequence[tuple[int, Sequence[dict[str, Any]]]], world_size: int, folder: Path
) -> list[list[StageTrace]]:
    """What each of these ranks, given as (rank, its cases), answers; `kind` as in tests/verify/rank.py."""
    port = free_port()
    names = [folder / f"{kind}{rank}of{world_size}" for rank, _ in ranks]
    with ExitStack() as stack:
        processes = []
        for name, (rank, cases) in zip(names, ranks, strict=True):
            name.with_suffix(".cases").write_text(json.dumps(list(cases)))
            files = [str(name.with_suffix(suffix)) for suffix in (".cases", ".json")]
            arguments = [kind, str(rank), str(world_size), str(port), *files]
            with name.with_suffix(".log").open("w") as log:
                processes.append(start("tests.verify.rank", *arguments, stdout=log))
            stack.callback(processes[-1].kill)
        for name, process in zip(names, processes, strict=True):
            code = process.wait(SECONDS)
            assert code == 0, f"{name.name}: exit {code}\n{name.with_suffix('.log').read_text()[-3000:]}"
    read = TypeAdapter(list[StageTrace]).validate_json
    return [read(name.with_suffix(".json").read_bytes()) for name in names]
