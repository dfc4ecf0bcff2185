"""Configs that lint and DeepSpeed once judged differently, found by tests.benchmarks.lint_differential."""

from __future__ import annotations

import json
from typing import Any

from tests.review.lint.configs import names_no_optimizer
from tests.review.lint.oracle import Case

ADAM = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
FP16 = {"enabled": True}


def config(**keys: Any) -> str:
    return json.dumps({"train_micro_batch_size_per_gpu": 1, "optimizer": ADAM, **keys})


def ltd(**keys: Any) -> dict[str, Any]:
    return {"data_routing": {"enabled": True, "random_ltd": {"enabled": True, **keys}}}


ONCE_ACCEPTED: dict[str, str] = {
    "a key under both of its names": config(
        zero_optimization={"stage": 3, "max_live_parameters": 1, "stage3_max_live_parameters": 2}
    ),
    "a deprecated key beside the new one": config(
        zero_optimization={"cpu_offload": False, "offload_optimizer": {"device": "none"}}
    ),
    "a schedule of torch around ZeRO": config(
        zero_optimization={"stage": 1}, scheduler={"type": "StepLR", "params": {"step_size": 30}}
    ),
    "betas that are no pair": config(
        optimizer={"type": "Adam", "params": {"betas": 1.0, "torch_adam": True}}
    ),
    "a rate that is text": config(optimizer={"type": "Muon", "params": {"lr": ""}}),
    "a param of no optimizer": config(optimizer={"type": "Adagrad", "params": {"llr": 3e-5}}),
    "a schedule's end that is text": config(
        scheduler={"type": "WarmupDecayLR", "params": {"total_num_steps": "all", "warmup_num_steps": 10}}
    ),
    "gradients summed in int8": config(fp16=FP16, data_types={"grad_accum_dtype": "torch.int8"}),
    "a loss scale beyond a float": config(
        fp16={**FP16, "initial_scale_power": 500_000}, zero_optimization={"stage": 1}
    ),
    "a loss scale beyond what ZeRO multiplies with": config(
        fp16={**FP16, "initial_scale_power": 500}, zero_optimization={"stage": 2}
    ),
    "curriculum learning without metrics": config(
        data_efficiency={"data_sampling": {"curriculum_learning": {"enabled": True}}}
    ),
    "random layerwise token dropping without layers": config(data_efficiency={"enabled": True, **ltd()}),
    "a number where true or false is asked": config(checkpoint={"parallel_write": {"pipeline_stage": 4.0}}),
    "ZenFlow without ZeRO": config(zero_optimization={"stage": 0, "zenflow": {"update_interval": 1}}),
    "progress every 0 steps": config(steps_per_print=0),
    'progress every "10" steps': config(steps_per_print="10"),
    "a vocabulary in quotes": config(vocabulary_size="50257"),
    "clipping of null": config(gradient_clipping=None),
    "a division of gradients by 0": config(gradient_predivide_factor=0),
    "inputs in half of a model that is not": config(fp16={"enabled": False, "auto_cast": True}),
    "sequence parallelism of text": config(sequence_parallel_size="2"),
    "profiling of text": config(flops_profiler={"enabled": "yes"}),
    "a batch that is no number": config(
        data_efficiency={"data_sampling": {"dynamic_batching": {"max_batch_size": "all"}}}
    ),
    "a checkpoint writer that nothing writes in parallel": config(
        checkpoint={"writer": {"decoupled": False}}
    ),
    "a period in quotes": config(
        optimizer={"type": "SGD", "params": {"lr": 1e-3}},
        scheduler={"type": "StepLR", "params": {"step_size": "30"}},
    ),
    "a batch size of null": config(train_micro_batch_size_per_gpu=None),
}
"""DeepSpeed refuses them, and lint had no error."""

FIRST_STEP_REFUSED: dict[str, tuple[str, int, int]] = {
    "a loss scale beyond a float in a pipeline of one rank": (
        config(fp16={**FP16, "initial_scale_power": 4096}), 1, 1,
    ),
    "a loss scale beyond a float in a pipeline of two stages": (
        config(fp16={**FP16, "initial_scale_power": 4096}), 4, 2,
    ),
    "a loss scale beyond a float after a thousand micro-batches": (
        config(fp16={**FP16, "initial_scale_power": 4096}, gradient_accumulation_steps=1000), 1, 0,
    ),
    "gradients divided by text": (config(gradient_predivide_factor="2"), 1, 0),
    "timing a pipeline of one rank that prints no progress": (config(wall_clock_breakdown=True), 1, 1),
    "timing two stages": (config(wall_clock_breakdown=True, steps_per_print=10), 4, 2),
    "autocast to fp16 on two stages": (
        config(torch_autocast={"enabled": True, "dtype": "torch.float16"}), 4, 2,
    ),
    "profiling two stages": (config(flops_profiler={"enabled": True}, steps_per_print=10), 4, 2),
}  # fmt: skip
"""Text, ranks and stages. DeepSpeed initialises, and refuses at the first step, which the oracle once did not
run: it took lint's errors for false alarms, and saw nothing where lint had none."""

ONCE_REFUSED: dict[str, str] = {
    "contiguous checkpoints that nobody configures": config(
        activation_checkpointing={"contiguous_memory_optimization": True}
    ),
    "elastic checkpoints at stage 3": config(zero_optimization={"stage": 3, "elastic_checkpoint": True}),
    "loading in turn at stage 1": config(zero_optimization={"stage": 1, "pipeline_loading_checkpoint": True}),
    "1 where true or false is asked": config(checkpoint={"parallel_write": {"pipeline_stage": 1}}),
    "1 where the clock is switched": config(wall_clock_breakdown=1),
    "whole micro-batches as true": config(gradient_accumulation_steps=True),
    "auto where true or false is asked by if": config(disable_python_gc="auto"),
    "one leaf module as text": config(zero_optimization={"stage": 3, "leaf_module": {"names": "a"}}),
}
"""DeepSpeed takes them, and lint had an error. Some of them stop it later, at a checkpoint."""

STILL_REFUSED: dict[str, str] = {
    "half a sample": json.dumps({"train_micro_batch_size_per_gpu": 0.5, "gradient_accumulation_steps": 2}),
}
"""DeepSpeed takes them, and lint says no on purpose: what they ask for cannot be."""


def cases() -> dict[str, Case]:
    named = {name: (text, 1, 0) for name, text in {**ONCE_ACCEPTED, **ONCE_REFUSED}.items()}
    return {
        name: Case(text, ranks, stages, names_no_optimizer(text), name)
        for name, (text, ranks, stages) in {**named, **FIRST_STEP_REFUSED}.items()
    }
