"""A file a kind of input: each makes a Case from a generator of random numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from tests.campaigns.fuzzing.case import Case
from tests.campaigns.fuzzing.inputs import (
    cache,
    engine_config,
    experiment_and_lab,
    hostfile,
    rendered,
    run_directory,
)

KINDS: Mapping[str, tuple[int, Callable[[random.Random], Case]]] = {
    "lab file": (20, experiment_and_lab.lab_case),
    "experiment file": (24, experiment_and_lab.experiment_case),
    "DeepSpeed JSON": (16, engine_config.case),
    "rendered directory": (12, rendered.case),
    "hostfile": (8, hostfile.case),
    "run directory and checkpoint": (14, run_directory.case),
    "cache, captions": (6, cache.case),
}
"""Kind -> its share in percent, and what makes one."""


def make_case(seed: int, number: int) -> Case:
    """Always the same for the same two numbers."""
    rng = random.Random(f"{seed}/{number}")
    kinds = list(KINDS)
    (chosen,) = rng.choices(kinds, [KINDS[kind][0] for kind in kinds])
    return KINDS[chosen][1](rng)
