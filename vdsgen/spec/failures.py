"""How often jobs fail on a pool, and how fast it writes checkpoints."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from vdsgen.spec.base import NonNegativeFloat, PositiveFloat, Spec, SpecError


class Failures(Spec):
    """How often something of a pool ends a job: hardware, drivers, network, or whoever stops it. Give the
    mean time of one GPU or of one node; a job of many fails as many times as often."""

    mean_hours_between_failures_per_gpu: PositiveFloat | None = None
    mean_hours_between_failures_per_node: PositiveFloat | None = None
    restart_seconds: NonNegativeFloat = 0.0
    """From a failure to ranks that read the checkpoint: noticing it, waiting for GPUs, starting. Reading
    comes on top."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = (self.mean_hours_between_failures_per_gpu, self.mean_hours_between_failures_per_node)
        if (given[0] is None) == (given[1] is None):
            both = "both are" if given[0] is not None else "neither is"
            raise SpecError(
                "mean_hours_between_failures_per_gpu",
                "give mean_hours_between_failures_per_gpu or mean_hours_between_failures_per_node, "
                f"{both} given",
                remedy="docs/saving.md has published figures",
            )
        return self

    def seconds_between(self, gpus: int, nodes: int) -> float:
        """Mean time between failures of a job of so many."""
        if self.mean_hours_between_failures_per_gpu is not None:
            return 3600 * self.mean_hours_between_failures_per_gpu / gpus
        assert self.mean_hours_between_failures_per_node is not None
        return 3600 * self.mean_hours_between_failures_per_node / nodes


class CheckpointStorage(Spec):
    """How fast checkpoints are written where the runs of a pool lie: to the disk, hashed. `vdsgen calibrate
    --checkpoints FOLDER` measures it."""

    write_gb_per_second: PositiveFloat
    """By all ranks of one node together."""
    total_write_gb_per_second: PositiveFloat | None = None
    """By all nodes together; None: each as fast as if it were alone."""
