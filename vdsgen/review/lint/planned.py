"""A config beside the plan that it was rendered from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vdsgen.errors import VdsgenError
from vdsgen.render.check_rendered import differences
from vdsgen.render.engine_config import engine_config, pipeline_section, zero_section
from vdsgen.review.lint.document import Document
from vdsgen.review.lint.finding import Finding, finding_at
from vdsgen.review.lint.kinds import written
from vdsgen.review.lint.rules import as_patch
from vdsgen.rules.rule import REMOVE
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.load import load_experiment, validated
from vdsgen.spec.plan import Plan
from vdsgen.spec.text_file import read_text
from vdsgen.spec.yaml_source import read_yaml


def read_plan(path: Path) -> Plan:
    """Raises InputError with line and column where the file is no plan."""
    text = read_text(path)
    try:
        return Plan.model_validate_json(text)
    except ValidationError:
        # Once more as YAML, which JSON is: its reader knows the place of every key.
        return validated(Plan, read_yaml(path)).spec


def planned_sections(plan: Plan, beside: Path) -> Mapping[str, Any]:
    """What ds_config.json was rendered with; without a train.yaml beside the plan, what the plan alone
    decides."""
    try:
        experiment: Experiment | None = load_experiment(beside / "train.yaml")
    except VdsgenError:
        experiment = None
    if experiment is not None:
        return engine_config(plan, experiment)
    batch = plan.batch
    return {
        "train_batch_size": batch.global_batch_size,
        "train_micro_batch_size_per_gpu": batch.micro_batch_size,
        "gradient_accumulation_steps": batch.gradient_accumulation_steps,
        "pipeline": pipeline_section(plan),
        "zero_optimization": zero_section(plan),
    }


def departures(document: Document, sections: Mapping[str, Any]) -> list[Finding]:
    """Keys that say something else than the plan."""
    found = []
    for name, is_there, wanted in differences(document.plain, sections):
        path = tuple(name.split("."))
        says = "left out" if wanted is None else written(wanted)
        if document.node(path) is None:
            message = f"{name} is left out, the plan says {says}"
        else:
            message = f"{name} is {written(is_there)}, in the plan it is {says}"
        change = ("/" + "/".join(path), REMOVE if wanted is None else wanted)
        found.append(
            finding_at(
                document, path, "departs-from-plan", "warning", message,
                remedy="plan what you want instead, or take the plan's value",
                source="render/engine_config.py", fix=as_patch(document, (change,)),
            )
        )  # fmt: skip
    return found
