"""What a pipeline's layers hand on, and how long it takes from one stage to the next."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.cost.compute import costs_of
from vdsgen.cost.hardware import Hardware
from vdsgen.cost.layer_bytes import waiting_bytes
from vdsgen.cost.settings import Settings
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.profile import ModelProfile

TRANSFERRED_TENSORS = 2
"""Messages of one activation between stages: hidden state and modulation (a text condition adds one)."""


class Transfers:
    """Of one rank's part of a model, for one micro-batch."""

    def __init__(self, profile: ModelProfile, geometry: Geometry, hardware: Hardware) -> None:
        self._profile = profile
        self._geometry = geometry
        self._hardware = hardware
        self._hidden: dict[tuple[int, Dtype], tuple[int, ...]] = {}
        self._boundaries: dict[tuple[int, Dtype], tuple[float, ...]] = {}
        self._sends: dict[tuple[object, ...], tuple[float, ...]] = {}

    def hidden_bytes(self, micro_batch_size: int, dtype: Dtype) -> tuple[int, ...]:
        """Each layer's output for one micro-batch, without side tensors."""
        key = (micro_batch_size, dtype)
        if key not in self._hidden:
            self._hidden[key] = tuple(
                costs_of(self._profile, name, dtype).output_bytes.at(micro_batch_size, self._geometry)
                for name in self._profile.layers
            )
        return self._hidden[key]

    def boundary_bytes(self, micro_batch_size: int, dtype: Dtype) -> tuple[float, ...]:
        """Bytes that each layer hands to the next: its output, all side tensors made so far, and what waits
        to be joined."""
        key = (micro_batch_size, dtype)
        if key not in self._boundaries:
            side, volumes = 0.0, []
            hidden = self.hidden_bytes(micro_batch_size, dtype)
            waiting = waiting_bytes(self._profile, hidden)
            for name, output, aside in zip(self._profile.layers, hidden, waiting, strict=True):
                costs = costs_of(self._profile, name, dtype)
                side += costs.side_bytes.at(micro_batch_size, self._geometry)
                volumes.append(output + aside + side)
            self._boundaries[key] = tuple(volumes)
        return self._boundaries[key]

    def boundary_seconds(self, settings: Settings, stage: int) -> tuple[float, ...]:
        """For each layer, the seconds that what it hands on takes from `stage` to the next."""
        path = self._hardware.stage_boundary(settings, stage)
        key = (path, settings.micro_batch_size, settings.dtype)
        if key not in self._sends:
            messages = TRANSFERRED_TENSORS + (1 if self._geometry.text_tokens else 0)
            self._sends[key] = tuple(
                self._hardware.factors.communication_factor * path.send_seconds(volume, messages)
                for volume in self.boundary_bytes(settings.micro_batch_size, settings.dtype)
            )
        return self._sends[key]

    def seconds(self, settings: Settings, partition: Sequence[int]) -> list[float]:
        """Between the stages of a partition."""
        return [
            self.boundary_seconds(settings, stage)[boundary - 1]
            for stage, boundary in enumerate(partition[1:-1])
        ]
