"""The models and labs that planners are compared on."""

from __future__ import annotations

from pathlib import Path

from vdsgen.catalog.inputs import open_inputs
from vdsgen.cli.profiles import find_profile
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.workload import Workload


def workload_for(experiment: Path, lab: Path) -> Workload:
    """The experiment on the lab's first pool, names resolved."""
    opened, resolved = open_inputs(lab, experiment, ())
    return workload_of(resolved, opened.pools[0], find_profile(resolved))
