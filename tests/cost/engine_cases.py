"""Every engine mode that plans may use, as cases for ranks to measure, and what the model predicts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from tests.forks.start import free_port, start
from vdsgen.cost import engine_defaults as defaults
from vdsgen.cost.engine_optimizer import engine_optimizer
from vdsgen.cost.model_states import model_states
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.cost.state_bytes import ModelStates
from vdsgen.spec.dtypes import Dtype

BUCKET_ELEMENTS = 40_000
"""One of the worker's layers, and not two."""
PERSISTENCE_THRESHOLD = 1_000
"""The worker's biases stay whole under ZeRO-3, its weights do not."""
SECONDS = 300


@dataclass(frozen=True, slots=True)
class Measured:
    """One rank's answer about one case."""

    settings: Settings
    sizes: StageSizes
    predicted: ModelStates
    answer: dict[str, Any]

    @property
    def label(self) -> str:
        s = self.settings
        return (
            f"pipeline {s.pipeline_parallel_size} x data {s.data_parallel_size}, ZeRO-{s.zero_stage}, "
            f"{s.dtype}, sums in {s.gradient_accumulation_dtype}"
        )


def allowed_settings(world_size: int) -> list[Settings]:
    """Layouts of 1 or 2 stages and 1 or 2 data ranks, with every ZeRO stage and precision they may have."""
    found = []
    for stages in (1, 2):
        if world_size % stages or world_size // stages > 2:
            continue
        for zero_stage in range(4):
            for dtype, accumulation in _precisions():
                settings = Settings(
                    pipeline_parallel_size=stages,
                    data_parallel_size=world_size // stages,
                    zero_stage=zero_stage,
                    micro_batch_size=1,
                    gradient_accumulation_steps=2,
                    activation_checkpoint_interval=0,
                    dtype=dtype,
                    gradient_accumulation_dtype=accumulation,
                    reduce_bucket_elements=BUCKET_ELEMENTS,
                    allgather_bucket_elements=BUCKET_ELEMENTS,
                )
                if is_allowed(settings):
                    found.append(settings)
    return found


def _precisions() -> tuple[tuple[Dtype, Dtype], ...]:
    return (("fp32", "fp32"), ("fp16", "fp16"), ("fp16", "fp32"), ("bf16", "bf16"), ("bf16", "fp32"))


def is_allowed(settings: Settings) -> bool:
    try:
        engine_optimizer(settings)
    except ValueError:
        return False
    return True


def case_of(settings: Settings) -> dict[str, Any]:
    """The worker's input: the engine's settings as a rendered ds_config.json has them."""
    zero: dict[str, Any] = {
        "stage": settings.zero_stage,
        "reduce_bucket_size": settings.reduce_bucket_elements,
        "allgather_bucket_size": settings.allgather_bucket_elements,
        "contiguous_gradients": defaults.contiguous_gradients(settings.zero_stage),
        "overlap_comm": defaults.OVERLAP_COMM,
        "reduce_scatter": defaults.REDUCE_SCATTER,
        "round_robin_gradients": defaults.ROUND_ROBIN_GRADIENTS,
    }
    if settings.zero_stage == 3:
        zero |= {
            "sub_group_size": defaults.STAGE3_SUB_GROUP_ELEMENTS,
            "stage3_max_live_parameters": defaults.STAGE3_MAX_LIVE_PARAMETERS,
            "stage3_max_reuse_distance": defaults.STAGE3_MAX_REUSE_DISTANCE,
            "stage3_prefetch_bucket_size": defaults.STAGE3_PREFETCH_BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": PERSISTENCE_THRESHOLD,
        }
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": settings.micro_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "steps_per_print": None,
        "gradient_clipping": 1.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True, "fused": True}},
        "zero_optimization": zero,
    }
    if settings.dtype == "fp16":
        config["fp16"] = {"enabled": True, "initial_scale_power": 4}
    if settings.dtype == "bf16":
        config["bf16"] = {"enabled": True}
        if is_allowed(settings) and engine_optimizer(settings) == "BF16_Optimizer":
            config["bf16"]["immediate_grad_update"] = defaults.BF16_IMMEDIATE_GRADIENT_UPDATE
    if settings.gradient_accumulation_dtype != settings.dtype:
        config["data_types"] = {"grad_accum_dtype": settings.gradient_accumulation_dtype}
    return {
        "stages": settings.pipeline_parallel_size,
        "zero_stage": settings.zero_stage,
        "dtype": settings.dtype,
        "config": config,
    }


def run_ranks(
    world_size: int, cases: Sequence[dict[str, Any]], folder: Path, seconds: float = SECONDS
) -> list[list[dict[str, Any]]]:
    """Each rank's answers, by rank. Raises AssertionError with the log of a rank that failed, and
    TimeoutExpired after so many seconds."""
    (folder / "cases.json").write_text(json.dumps(list(cases)))
    port = free_port()
    logs = [folder / f"rank{rank}.log" for rank in range(world_size)]
    with ExitStack() as stack:
        ranks = []
        for rank, log in enumerate(logs):
            files = [str(folder / "cases.json"), str(folder / f"rank{rank}.json")]
            with log.open("w") as output:
                process = start(
                    "tests.cost.rank", str(rank), str(world_size), str(port), *files, stdout=output
                )
            stack.callback(process.kill)
            ranks.append(process)
        for rank, process in enumerate(ranks):
            code = process.wait(seconds)
            assert code == 0, f"rank {rank} of {world_size}: exit {code}\n{logs[rank].read_text()[-3000:]}"
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(world_size)]


def beside_predictions(
    everything: Sequence[Settings], by_rank: Sequence[Sequence[dict[str, Any]]]
) -> list[Measured]:
    """Answers beside predictions: one a case and rank."""
    found = []
    for answers in by_rank:
        for settings, answer in zip(everything, answers, strict=True):
            sizes = sizes_of(answer["shapes"])
            found.append(Measured(settings, sizes, model_states(sizes, settings), answer))
    return found


def sizes_of(shapes: Sequence[Sequence[int]]) -> StageSizes:
    counts = Counter(prod(shape) for shape in shapes)
    total = sum(elements * count for elements, count in counts.items())
    return StageSizes(total, total, max(counts), tuple(sorted(counts.items())))
