"""Training runs whose memory and time are measured on one GPU (docs/gpu.md), each an experiment with pins."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "docs/measured/gpu"
LAB, CALIBRATED_LAB = FOLDER / "lab.yaml", FOLDER / "lab-calibrated.yaml"


class Case(NamedTuple):
    """One run."""

    name: str
    experiment: str
    """File in FOLDER/experiments."""
    words: str
    """For the page."""
    overrides: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        return FOLDER / "experiments" / f"{self.experiment}.yaml"


def case(
    name: str,
    experiment: str,
    words: str,
    *more: str,
    zero: int,
    micro_batch: int,
    interval: int,
    clips: int | None = None,
    recompute: str = "full",
    **pins: str,
) -> Case:
    """Nothing is searched but what no pin names."""
    chosen = {
        "zero_stage": zero,
        "micro_batch_size": micro_batch,
        "activation_checkpoint_interval": interval,
        "recompute": recompute,
        "offload_activations": "false",
        "activation_compression": "none",
        "offload_optimizer": "none",
        "offload_parameters": "none",
        **pins,
    }
    overrides = [f"constraints.{key}={value}" for key, value in chosen.items()]
    if clips is not None:
        overrides.append(f"training.global_batch_size={clips}")
    return Case(name, experiment, words, (*overrides, *more))


LARGE, WIDE, WAN, LORA, DEMO = "article-1.5b", "wide-1.4b", "wan-1.3b", "wan-1.3b-lora", "demo"
CASES = (
    case("1.5b-plain-1", LARGE, "micro-batch 1", zero=1, micro_batch=1, interval=0, clips=4),
    case("1.5b-plain-2", LARGE, "micro-batch 2: the planner's choice", zero=1, micro_batch=2, interval=0),
    case("1.5b-4", LARGE, "micro-batch 4, every block recomputed", zero=1, micro_batch=4, interval=1,
         clips=4),
    case("1.5b-8", LARGE, "micro-batch 8, every block recomputed", zero=1, micro_batch=8, interval=1),
    case("1.5b-selective", LARGE, "micro-batch 2, all but products recomputed", zero=1, micro_batch=2,
         interval=1, clips=4, recompute="selective"),
    case("1.5b-zero-0", LARGE, "ZeRO-0", zero=0, micro_batch=4, interval=1, clips=4),
    case("1.5b-fp16", LARGE, "ZeRO-0, fp16", "training.precision=fp16", zero=0, micro_batch=4, interval=1,
         clips=4),
    case("1.5b-zero-3", LARGE, "ZeRO-3", zero=3, micro_batch=4, interval=1, clips=4),
    case("1.5b-offloaded-activations", LARGE, "micro-batch 8, checkpoints in host memory", zero=1,
         micro_batch=8, interval=1, offload_activations="true"),
    case("1.5b-packed-activations", LARGE, "micro-batch 8, checkpoints in int8", zero=1, micro_batch=8,
         interval=1, activation_compression="int8"),
    case("1.5b-offloaded-optimizer", LARGE, "ZeRO-2, optimizer in host memory", zero=2, micro_batch=4,
         interval=1, clips=4, offload_optimizer="cpu"),
    case("1.5b-adamw-8bit", LARGE, "AdamW's moments in int8", "training.optimizer.state_dtype=int8", zero=1,
         micro_batch=4, interval=1, clips=4),
    case("1.5b-ema", LARGE, "EMA on the GPU", "training.ema.decay=0.999", zero=1, micro_batch=4, interval=1,
         clips=4),
    case("1.5b-ema-host", LARGE, "EMA in host memory", "training.ema.decay=0.999", "training.ema.device=cpu",
         zero=1, micro_batch=4, interval=1, clips=4),
    case("1.5b-fp8", LARGE, "linear layers in fp8", "training.linear_precision=fp8", zero=1, micro_batch=4,
         interval=1, clips=4),
    case("wide", WIDE, "micro-batch 4", zero=1, micro_batch=4, interval=0),
    case("wide-fp8", WIDE, "linear layers in fp8", "training.linear_precision=fp8", zero=1, micro_batch=4,
         interval=0),
    case("wide-int8", WIDE, "linear layers in int8", "training.linear_precision=int8", zero=1, micro_batch=4,
         interval=0),
    case("wan", WAN, "micro-batch 4, every block recomputed", zero=1, micro_batch=4, interval=1),
    case("wan-lora-2", LORA, "LoRA, micro-batch 2", zero=0, micro_batch=2, interval=0),
    case("wan-lora-4", LORA, "LoRA, micro-batch 4, every block recomputed", zero=0, micro_batch=4,
         interval=1),
    case("demo-8", DEMO, "micro-batch 8", zero=1, micro_batch=8, interval=0),
    case("demo-1", DEMO, "micro-batch 1", zero=1, micro_batch=1, interval=0),
)  # fmt: skip
