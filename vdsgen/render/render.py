"""A plan and its experiment as files: names and bytes, nothing written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from vdsgen.errors import InputError, Problem
from vdsgen.planner.saving import with_interval
from vdsgen.render.check_rendered import (
    check_ds_config,
    check_experiment,
    check_hostfile,
    check_manifest,
    check_plan,
    check_shell,
)
from vdsgen.render.context import template_context
from vdsgen.render.environment import (
    Environment,
    bundled_environment,
    render_template,
)
from vdsgen.render.file_names import FILES as FILES
from vdsgen.render.file_names import KNOWN_FILES as KNOWN_FILES
from vdsgen.render.file_names import OF_LAUNCHERS
from vdsgen.render.placement import placement
from vdsgen.render.serialise import pretty_json
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan


def files_of(plan: Plan) -> tuple[str, ...]:
    """Names of the files that a plan is rendered to."""
    launcher = plan.inputs.pool.launcher
    return (*FILES, *(name.removesuffix(".j2") for name in OF_LAUNCHERS.get(launcher or "", ())))


def render_plan(plan: Plan, experiment: Experiment, template_dir: Path | None = None) -> dict[str, bytes]:
    """The rendered directory, as name -> bytes. `experiment` is resolved: its model has all its sizes.

    Templates in `template_dir` stand in for the bundled ones of the same name. What comes out is read back
    and compared with the plan and the experiment; JSON is written in one canonical form whatever the
    template's spacing. Raises VdsgenError where a template fails or says something else than the plan.
    """
    experiment = with_interval(experiment, plan.saving)
    environment = bundled_environment() if template_dir is None else Environment(template_dir)
    context = template_context(plan, experiment)
    texts = {name: render_template(environment, f"{name}.j2", context) for name in files_of(plan)}
    for name in ("ds_config.json", "plan.json"):
        texts[name] = pretty_json(_parsed_json(name, texts[name]))
    check_ds_config(texts["ds_config.json"], context["engine"])
    check_plan(texts["plan.json"], plan)
    check_experiment(texts["train.yaml"], experiment)
    check_hostfile(texts["hostfile"], placement(plan))
    if "pytorchjob.yaml" in texts:
        check_manifest(texts["pytorchjob.yaml"], context["pytorch_job"])
    for name in ("launch.sh", "train.sbatch"):
        if name in texts:
            check_shell(name, texts[name])
    return {name: text.encode("utf-8") for name, text in texts.items()}


def _parsed_json(name: str, text: str) -> object:
    """Raises InputError with the line of the rendered text, and that line, where it is no JSON."""

    def once(pairs: list[tuple[str, object]]) -> Mapping[str, object]:
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise InputError([Problem(f"the rendered text has {', '.join(twice)} twice", file=f"{name}.j2")])
        return dict(pairs)

    def not_json(constant: str) -> object:
        raise InputError([Problem(f"what it renders is no JSON: {constant}", file=f"{name}.j2")])

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=not_json)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if text else ""
        message = f"what it renders is no JSON: {error.msg} in line {error.lineno}: {line.strip()!r}"
        raise InputError([Problem(message, file=f"{name}.j2")]) from error
