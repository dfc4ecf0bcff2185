"""Files of a plan for trainers other than ours, where they can do what it says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from vdsgen.errors import VdsgenError
from vdsgen.render import accelerate, diffusion_pipe, megatron
from vdsgen.render.accelerate import accelerate_files, accelerate_limits
from vdsgen.render.diffusion_pipe import diffusion_pipe_files
from vdsgen.render.diffusion_pipe_limits import diffusion_pipe_limits
from vdsgen.render.megatron import megatron_files, megatron_limits
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan


@dataclass(frozen=True, slots=True)
class OtherTrainer:
    """How a plan is said to another trainer."""

    title: str
    files: tuple[str, ...]
    limits: Callable[[Plan, Experiment], Iterator[str]]
    """What it cannot do of a plan."""
    texts: Callable[[Plan, Experiment], dict[str, str]]
    """File name -> text, of a plan that `limits` has nothing against."""


OTHERS: Mapping[str, OtherTrainer] = {
    "accelerate": OtherTrainer("Accelerate", (accelerate.FILE,), accelerate_limits, accelerate_files),
    "megatron": OtherTrainer("Megatron-LM", (megatron.FILE,), megatron_limits, megatron_files),
    "diffusion-pipe": OtherTrainer(
        "diffusion-pipe", diffusion_pipe.FILES, diffusion_pipe_limits, diffusion_pipe_files
    ),
}
OTHER_FILES: Mapping[str, str] = {file: name for name, other in OTHERS.items() for file in other.files}
"""File name -> the trainer it is for."""


def render_others(names: Collection[str], plan: Plan, experiment: Experiment) -> dict[str, bytes]:
    """File name -> content. Raises VdsgenError with everything that a trainer cannot do of the plan."""
    files: dict[str, bytes] = {}
    for name in dict.fromkeys(names):
        other = OTHERS[name]
        lacking = list(other.limits(plan, experiment))
        if lacking:
            raise VdsgenError(
                f"{other.title} cannot do what the plan for {plan.pool} says: {'; '.join(lacking)}",
                remedy=f"pin what it can with --set, or leave out --also {name}",
            )
        files |= {file: text.encode() for file, text in other.texts(plan, experiment).items()}
    return files
