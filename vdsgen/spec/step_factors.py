"""What an ablation learned of a pool: how its steps differ from what the time model makes of its rates."""

from __future__ import annotations

from vdsgen.spec.base import NonNegativeFloat, PositiveFloat, Spec


class StepFactors(Spec):
    """Measured over predicted seconds, by part of a step (`vdsgen ablate`).

    They belong to the rates that they were fitted with: measure those again, and these are void.
    """

    compute_factor: PositiveFloat = 1.0
    """On forward and backward, and so on the pipeline's bubble."""
    recompute_factor: PositiveFloat = 1.0
    """On forwards that run again for checkpointed blocks."""
    communication_factor: PositiveFloat = 1.0
    """On transfers between stages, gradient reduction, parameter gathers and offload traffic."""
    optimizer_factor: PositiveFloat = 1.0
    overhead_seconds: NonNegativeFloat = 0.0
    """Of every step, whatever the plan: what the time model has no part for."""
