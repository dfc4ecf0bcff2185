"""Predicted beside measured memory, on real engines on this processor.

    python -m tests.benchmarks.memory_table

Prints the two tables of docs/memory.md; takes some minutes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.cost.activation_cases import PARTITIONS, activation_settings, on_this_processor, worker_case
from tests.cost.engine_cases import (
    PERSISTENCE_THRESHOLD,
    Measured,
    allowed_settings,
    beside_predictions,
    case_of,
    run_ranks,
)
from vdsgen.cost import engine_defaults
from vdsgen.cost.activations import stage_activations
from vdsgen.cost.settings import Settings


def main() -> None:
    """Both tables, as Markdown."""
    engine_defaults.STAGE3_PARAM_PERSISTENCE_THRESHOLD = PERSISTENCE_THRESHOLD
    states: list[Measured] = []
    activations: list[tuple[Settings, dict[str, Any]]] = []
    for ranks in (1, 2, 4):
        modes = allowed_settings(ranks)
        staged = [
            settings
            for settings in (activation_settings(ranks) if ranks in PARTITIONS else [])
            if settings.gradient_accumulation_steps > ranks  # beside full gradients
        ]
        cases = [*map(case_of, modes), *map(worker_case, staged)]
        with tempfile.TemporaryDirectory() as folder:
            by_rank = run_ranks(ranks, cases, Path(folder))
        states += beside_predictions(modes, [answers[: len(modes)] for answers in by_rank])
        for index, settings in enumerate(staged, start=len(modes)):
            activations += [(settings, answers[index]) for answers in by_rank]
    print_table(
        ("layout", "ZeRO", "precision", "sums", "engine's class", "parameters", "gradients", "optimizer",
         "step's peak"),
        state_rows(states),
    )  # fmt: skip
    print()
    print_table(
        ("stages", "stage", "in flight", "precision", "interval", "predicted kB", "measured kB", "ratio"),
        activation_rows(activations),
    )


def state_rows(cases: Iterable[Measured]) -> Iterator[tuple[str, ...]]:
    """Bytes a parameter, predicted / measured, of the rank that measured most."""
    worst: dict[Settings, Measured] = {}
    for case in cases:
        known = worst.get(case.settings)
        if known is None or _error(case) > _error(known):
            worst[case.settings] = case
    for settings, case in worst.items():
        real, predicted, peaks = case.answer["bytes"], case.predicted, case.answer["peaks"]
        pairs = (
            (predicted.parameters_bytes, real["parameters"]),
            (predicted.gradients_bytes, real["gradients"]),
            (predicted.optimizer_bytes, real["optimizer"]),
            (predicted.held_bytes + predicted.workspace_bytes, max(peaks["reduce"], peaks["step"])),
        )
        yield (
            f"{settings.pipeline_parallel_size} x {settings.data_parallel_size}",
            str(settings.zero_stage),
            settings.dtype,
            settings.gradient_accumulation_dtype,
            case.answer["optimizer"],
            *(
                f"{one / case.sizes.parameters:.2f} / {other / case.sizes.parameters:.2f}"
                for one, other in pairs
            ),
        )


def _error(case: Measured) -> float:
    real = case.answer["bytes"]
    total = int(real["parameters"] + real["gradients"] + real["optimizer"])
    return abs(case.predicted.held_bytes / total - 1)


def activation_rows(cases: Iterable[tuple[Settings, dict[str, Any]]]) -> Iterator[tuple[str, ...]]:
    for settings, answer in cases:
        stages, stage = settings.pipeline_parallel_size, answer["stage"]
        layers = on_this_processor(torch.float32 if settings.dtype == "fp32" else torch.bfloat16)
        predicted = stage_activations(layers, settings, stage, *PARTITIONS[stages][stage : stage + 2])
        real = answer["peak"] - answer["states"]
        yield (
            str(stages),
            str(stage),
            str(predicted.in_flight),
            settings.dtype,
            str(settings.activation_checkpoint_interval),
            f"{predicted.peak_bytes / 1000:.0f}",
            f"{real / 1000:.0f}",
            f"{predicted.peak_bytes / real:.3f}",
        )


def print_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
