"""Cases of `tests.model.universal.worker`, and starting them with as few ranks and starts as can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.model.layout_worker import GLOBAL_BATCH, MODEL
from tests.model.ranks import DIFFUSERS, run_ranks

LAYERS = MODEL.depth + 2
Case = dict[str, Any]
WORKER = "tests.model.universal.worker"

PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"bf16": {"enabled": True}},
    "bf16, fp32 sums": {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}},
    "fp16": {"fp16": {"enabled": True, "initial_scale_power": 9, "loss_scale_window": 2, "hysteresis": 1}},
}
EMA: dict[str, Any] = {"ema": {"decay": 0.9, "warmup": True, "device": "accelerator", "every_steps": 1}}
INT8: dict[str, Any] = {"optimizer_state_dtype": "int8"}


def config(
    stages: int, data: int, zero_stage: int, precision: str, *, tensor: int = 1, **section: Any
) -> dict[str, Any]:
    """`section` goes into `vdsgen`."""
    micro = GLOBAL_BATCH // data // (2 if data < GLOBAL_BATCH else 1)
    cuts = [round(LAYERS * stage / stages) for stage in range(stages + 1)]
    untested = {"zero_allow_untested_optimizer": True} if "optimizer_state_dtype" in section else {}
    return {
        "train_batch_size": GLOBAL_BATCH,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": GLOBAL_BATCH // (micro * data),
        "pipeline": {
            "stages": stages,
            "partition": cuts,
            "activation_checkpoint_interval": 2,
            "use_reentrant": False,
            "tensor_parallel_size": tensor,
            "pipe_partitioned": False,
            "grad_partitioned": False,
        },
        "zero_optimization": {"stage": zero_stage},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True, "fused": True}},
        "scheduler": {
            "type": "WarmupLR",
            "params": {"warmup_min_lr": 0, "warmup_max_lr": 1e-3, "warmup_num_steps": 6},
        },
        "gradient_clipping": 1.0,
        **({"vdsgen": section} if section else {}),
        **untested,
        **PRECISIONS[precision],
    }


def ranks_of(case: Case) -> int:
    section = case["config"]["pipeline"]
    per_stage = case["config"]["train_batch_size"] // (
        case["config"]["train_micro_batch_size_per_gpu"] * case["config"]["gradient_accumulation_steps"]
    )
    return int(section["stages"] * section["tensor_parallel_size"] * per_stage)


def kind_of(case: Case) -> tuple[int, bool]:
    """Ranks, and whether they are a pipeline."""
    return ranks_of(case), case["config"]["pipeline"]["stages"] > 1


def run_cases(cases: Sequence[Case], folder: Path, timeout_seconds: float = 240) -> dict[str, list[Any]]:
    """What each rank says, by the case's name. One start for each kind of ranks, in the order of their first
    cases: DeepSpeed does not build a plain engine in a process that has built a pipelined one."""
    found: dict[str, list[Any]] = {}
    for kind in dict.fromkeys(map(kind_of, cases)):
        own = [case for case in cases if kind_of(case) == kind]
        job = {"cases": own, "folder": str(folder)}
        imports = DIFFUSERS if any(case.get("adapters") for case in own) else ()
        said = run_ranks(WORKER, kind[0], job, timeout_seconds, imports)
        found |= {case["name"]: [rank[index] for rank in said] for index, case in enumerate(own)}
    return found
