"""What one stage's model states are made of, in bytes."""

from __future__ import annotations

from typing import NamedTuple


class ModelStates(NamedTuple):
    """Bytes on each GPU of one stage (of the rank that needs most)."""

    parameters_bytes: int
    """All the time; ZeRO-3: this rank's share, and the small parameters that are never released."""
    gradients_bytes: int
    """At the end of a step's last backward."""
    optimizer_bytes: int
    """Master weights and moments, from the first step on."""
    communication_bytes: int
    """Buckets and gathered parameters while activations are held. `momentary_bytes` comes on top."""
    reduction_bytes: int
    """What reduction after the last backward holds beyond parameters, gradients and optimizer states. No
    activations are alive then."""
    step_bytes: int
    """What the optimizer step holds beyond them, norms and clipping included."""
    host_bytes: int = 0
    """What offload keeps in this rank's host memory: the other figures are the device's."""
    nvme_bytes: int = 0
    """What offload keeps in this rank's files on flash."""

    @property
    def held_bytes(self) -> int:
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes

    @property
    def workspace_bytes(self) -> int:
        """What reduction or the optimizer step needs, whichever needs more."""
        return max(self.reduction_bytes, self.step_bytes)
