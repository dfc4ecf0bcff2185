"""Deterministic sampling steps of each family: Euler for rectified flow and EDM, DDIM for discrete schedules.

Each step is linear in the clip and in what the module says, so a step is four numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from vdsgen.model.recipes.noising import TIMESTEPS
from vdsgen.model.recipes.schedule import STEPS, alphas, sigmas
from vdsgen.spec.recipes.recipe import Edm, Recipe, RectifiedFlow, ScheduledNoise

LINEAR_QUADRATIC_THRESHOLD = 0.025
"""Noise that the linear half of Mochi's schedule takes away (`pipeline_mochi.py:617`)."""


@dataclass(frozen=True, slots=True)
class SolverStep:
    """x -> keep * x + add * module(scale * x, timestep)."""

    timestep: float
    """In the unit that the module expects."""
    scale: float
    keep: float
    add: float


def solver_steps(recipe: Recipe, steps: int, frames: int, height: int, width: int) -> tuple[SolverStep, ...]:
    """From noise to a latent clip of this size."""
    objective = recipe.objective
    if isinstance(objective, RectifiedFlow):
        pixels = height * width * recipe.autoencoder.spatial_factor**2
        shift = recipe.sampling.shift.of(recipe.tokens(frames, height, width), pixels)
        return tuple(
            _euler(now, later, objective) for now, later in pairwise(flow_times(objective, steps, shift))
        )
    if isinstance(objective, ScheduledNoise):
        return tuple(_ddim(index, objective, steps) for index in ddim_indices(objective, steps))
    return tuple(_euler_edm(now, later) for now, later in pairwise([*karras_sigmas(objective, steps), 0.0]))


def initial_scale(recipe: Recipe) -> float:
    """Deviation of the noise that sampling starts from (`scheduling_euler_discrete.py:291`)."""
    return math.hypot(recipe.objective.sigma_max, 1.0) if isinstance(recipe.objective, Edm) else 1.0


def flow_times(objective: RectifiedFlow, steps: int, shift: float) -> list[float]:
    """steps + 1 values of t, from 1 down to 0."""
    if objective.sampling_schedule == "linear_quadratic":
        times = _linear_quadratic(steps)
    else:
        times = [1 - step / steps for step in range(steps)]
    times = [shift * t / (1 + (shift - 1) * t) for t in times]
    if objective.terminal is not None and steps > 1:
        factor = (1 - times[-1]) / (1 - objective.terminal)
        times = [1 - (1 - t) / factor for t in times]
    return [*times, 0.0]


def _linear_quadratic(steps: int) -> list[float]:
    """Half of the steps take little noise away, evenly; the others ever more (`pipeline_mochi.py:61`)."""
    linear = steps // 2
    if not linear:
        return [1.0] * steps
    threshold, quadratic = LINEAR_QUADRATIC_THRESHOLD, steps - linear
    difference = linear - threshold * steps
    square = difference / (linear * quadratic**2)
    slope = threshold / linear - 2 * difference / quadratic**2
    taken = [threshold * step / linear for step in range(linear)]
    taken += [square * step**2 + slope * step + square * linear**2 for step in range(linear, steps)]
    return [1 - value for value in taken]


def _euler(now: float, later: float, objective: RectifiedFlow) -> SolverStep:
    if objective.reversed_time:
        return SolverStep(TIMESTEPS * (1 - now), 1.0, 1.0, now - later)
    return SolverStep(TIMESTEPS * now, 1.0, 1.0, later - now)


def ddim_indices(objective: ScheduledNoise, steps: int) -> list[int]:
    """The schedule's steps that sampling takes, from noise down (`scheduling_ddim_cogvideox.py:306`)."""
    if objective.spacing == "leading":
        return [step * (STEPS // steps) for step in reversed(range(steps))]
    return [round(STEPS - step * STEPS / steps) - 1 for step in range(steps)]


def _ddim(index: int, objective: ScheduledNoise, steps: int) -> SolverStep:
    """alpha' * clean + sigma' * noise, where the module's word stands for both (arXiv 2010.02502, eq. 12)."""
    alpha, sigma = float(alphas(objective)[index]), float(sigmas(objective)[index])
    before = index - STEPS // steps
    to_alpha = float(alphas(objective)[before]) if before >= 0 else 1.0
    to_sigma = math.sqrt(1 - to_alpha**2)
    if objective.prediction == "v":
        keep, add = to_alpha * alpha + to_sigma * sigma, to_sigma * alpha - to_alpha * sigma
    else:
        keep, add = to_alpha / alpha, to_sigma - to_alpha * sigma / alpha
    return SolverStep(float(index), 1.0, keep, add)


def karras_sigmas(objective: Edm, steps: int) -> list[float]:
    """sigma_max ... sigma_min, even in sigma^(1/rho) (arXiv 2206.00364, equation 5)."""
    first, last = objective.sigma_max ** (1 / objective.rho), objective.sigma_min ** (1 / objective.rho)
    ramp = [step / max(1, steps - 1) for step in range(steps)]
    return [(first + share * (last - first)) ** objective.rho for share in ramp]


def _euler_edm(sigma: float, later: float) -> SolverStep:
    root = math.sqrt(sigma**2 + 1)
    return SolverStep(
        timestep=0.25 * math.log(sigma),
        scale=1 / root,
        keep=1 + (later - sigma) * sigma / root**2,
        add=(later - sigma) / root,
    )
