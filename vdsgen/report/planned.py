"""A rendered directory's plan, with its costs at hand."""

from __future__ import annotations

from pathlib import Path

from vdsgen.catalog.profiles import profile_for
from vdsgen.errors import VdsgenError
from vdsgen.planner.resolve import workload_of
from vdsgen.planner.workload import Workload
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.plan import Plan
from vdsgen.spec.rendered import read_rendered


def planned(directory: Path) -> tuple[Plan, Workload]:
    """Raises VdsgenError where it is no rendered directory, or no profile of its model is known."""
    rendered = read_rendered(directory)
    experiment = rendered.experiment
    model = experiment.model
    profile = profile_for(model, experiment.training) if isinstance(model, Vdt | DiffusersModel) else None
    if profile is None:
        raise VdsgenError(f"{directory}: no layer profile of its model is known", remedy="plan it once first")
    return rendered.plan, workload_of(
        rendered.experiment, rendered.plan.inputs.pool, profile, rendered.plan.nodes
    )
