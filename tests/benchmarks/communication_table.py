"""What data-parallel ranks send in a step, by the engine's settings and by the trainer's own compression.

    python -m tests.benchmarks.communication_table

Prints the table of docs/communication.md: four ranks of a tiny model on the real engine, collectives
counted. Takes some minutes.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from tests.model.ranks import run_ranks
from vdsgen.spec.trainer_section import COMPRESSION, SECTION

RANKS = 4
STEPS = 20
GLOBAL_BATCH = 4
LAYERS = 6
PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"bf16": {"enabled": True, "immediate_grad_update": True}},
    "bf16 + fp32": {
        "bf16": {"enabled": True, "immediate_grad_update": True},
        "data_types": {"grad_accum_dtype": "fp32"},
    },
    "fp16": {"fp16": {"enabled": True, "initial_scale_power": 9, "loss_scale_window": 1000}},
}
INT8 = {SECTION: {COMPRESSION: "int8"}}


class Case(NamedTuple):
    """One engine, and what is changed about its communication."""

    stages: int
    zero_stage: int
    precision: str
    told: str
    sections: dict[str, Any]

    @property
    def mode(self) -> tuple[int, int, str]:
        return (self.stages, self.zero_stage, self.precision)

    def job(self) -> dict[str, Any]:
        data = RANKS // self.stages
        zero: dict[str, Any] = {"stage": self.zero_stage, "reduce_bucket_size": 20000}
        if self.zero_stage == 3:
            zero |= {"stage3_param_persistence_threshold": 100, "stage3_max_reuse_distance": 1000,
                     "stage3_max_live_parameters": 20000, "stage3_prefetch_bucket_size": 5000,
                     "overlap_comm": False}  # fmt: skip
        if self.zero_stage == 1:
            zero["contiguous_gradients"] = False
        config = {
            "train_batch_size": GLOBAL_BATCH,
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": GLOBAL_BATCH // data,
            "pipeline": {
                "stages": self.stages,
                "partition": [0, LAYERS // 2, LAYERS] if self.stages == 2 else [0, LAYERS],
                "activation_checkpoint_interval": 0,
                "use_reentrant": False,
            },
            "zero_optimization": zero,
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True, "fused": True}},
            "gradient_clipping": 1.0,
            **PRECISIONS[self.precision],
        }
        for key, value in self.sections.items():
            config[key] = {**config[key], **value} if key == "zero_optimization" else value
        return {"name": self.told, "config": copy.deepcopy(config), "steps": STEPS}


MODES = [
    (1, 0, "fp32"), (1, 0, "bf16"), (1, 0, "fp16"), (1, 1, "fp32"), (1, 1, "bf16 + fp32"), (1, 1, "fp16"),
    (1, 2, "fp32"), (1, 2, "bf16 + fp32"), (1, 3, "fp32"), (1, 3, "bf16"),
    (2, 0, "fp32"), (2, 0, "bf16"), (2, 1, "fp32"), (2, 1, "bf16 + fp32"), (2, 1, "fp16"),
]  # fmt: skip


def cases() -> list[Case]:
    found = []
    for stages, zero, precision in MODES:
        found.append(Case(stages, zero, precision, "as it is", {}))
        for dtype in ("fp32", "bf16", "fp16"):
            if dtype not in precision or (precision == "bf16 + fp32" and dtype == "fp32"):
                section = {"communication_data_type": dtype}
                found.append(Case(stages, zero, precision, f"communication_data_type {dtype}", section))
        if zero <= 1:
            found.append(Case(stages, zero, precision, "int8", INT8))
    zeropp: list[tuple[str, dict[str, Any]]] = [
        ("zero_hpz_partition_size 2", {"zero_hpz_partition_size": 2}),
        ("reduce_scatter false", {"reduce_scatter": False}),
    ]
    for told, section in zeropp:
        found.append(Case(1, 3, "bf16", told, {"zero_optimization": section}))
    found.append(Case(1, 1, "fp32", "zero_hpz_partition_size 2", {"zero_optimization": zeropp[0][1]}))
    for stages, zero in ((1, 0), (1, 1), (1, 2), (1, 3)):
        found.append(Case(stages, zero, "fp32", "prescale_gradients", {"prescale_gradients": True}))
        found.append(
            Case(stages, zero, "fp32", "gradient_predivide_factor 2", {"gradient_predivide_factor": 2.0})
        )
    return sorted(found, key=lambda case: MODES.index(case.mode))


def measured() -> Iterator[tuple[Case, list[dict[str, Any]]]]:
    """(case, each rank's answer): one start of the ranks a mode, and at ZeRO-3, whose engines do not always
    go on after one another, one a case."""
    for mode, chosen in groupby(cases(), key=lambda case: (case.mode, case.told * (case.zero_stage == 3))):
        found = list(chosen)
        jobs = {"cases": [case.job() for case in found]}
        sys.stderr.write(f"{mode}\n")
        answers = run_ranks("tests.model.communication_worker", RANKS, jobs, timeout_seconds=1800)
        for index, case in enumerate(found):
            yield case, [rank[index] for rank in answers]


def main() -> None:
    """The table, as Markdown."""
    print("| layout | ZeRO | precision | engine's class | told | sent a step, kB | of it | last loss |")
    print("|---|---|---|---|---|---|---|---|")
    for case, ranks in measured():
        print("| " + " | ".join(row(case, ranks)) + " |", flush=True)


def row(case: Case, ranks: list[dict[str, Any]]) -> tuple[str, ...]:
    first = ranks[0]
    layout = f"{case.stages} x {RANKS // case.stages}"
    head = (layout, str(case.zero_stage), case.precision)
    if "refused" in first:
        return (*head, "", case.told, "refused", first["refused"].splitlines()[0][:160], "")
    parts = [
        f"{name.removesuffix('_into_tensor').removesuffix('_tensor').removesuffix('_single')} {dtype}"
        f"{'' if ranks_ == RANKS // case.stages else f' of {ranks_} ranks'} {volume / 1e3:.1f}"
        for name, dtype, ranks_, volume in first["sent"]
    ]
    total = sum(entry[-1] for entry in first["sent"])
    return (
        *head, first["optimizer"], case.told, f"{total / 1e3:.1f}", ", ".join(parts),
        f"{first['steps'][-1][0]:.5f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
