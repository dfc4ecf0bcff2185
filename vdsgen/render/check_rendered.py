"""What a template made, read back: it must say what the plan says, in words that its reader knows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from vdsgen.errors import InputError, Problem
from vdsgen.render.engine_keys import unread_keys
from vdsgen.render.placement import Placement
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan

HOST_LINE = re.compile(r"^(\S+)\s+slots=(\d+)$")
"""As in deepspeed/launcher/runner.py:229, to the end of the line."""
FREE = frozenset({"steps_per_print"})
"""Keys of ds_config.json that a lab's template may change: nothing planned rests on them."""
CLOSED = frozenset({"pipeline", "zero_optimization", "fp16", "bf16", "data_types", "optimizer", "scheduler"})
"""Sections that it may not add to either: the plan's memory and the experiment rest on all of each."""


def check_ds_config(text: str, planned: Mapping[str, Any]) -> None:
    """Raises InputError where ds_config.json differs from the planned sections or has a key nobody reads."""
    rendered = json.loads(text)
    problems = [
        Problem(f"{key}: neither DeepSpeed nor the training entrypoint reads this key", remedy=_near(near))
        for key, near in unread_keys(rendered)
    ]
    problems += [
        Problem(
            f"{key} is {_text(found)}, the plan says {_text(wanted)}", remedy="plan what you want instead"
        )
        for key, found, wanted in differences(rendered, planned)
    ]
    _raise("ds_config.json.j2", problems)


def check_plan(text: str, plan: Plan) -> None:
    """Raises InputError where plan.json does not read back as the plan."""
    try:
        same = Plan.model_validate_json(text) == plan
    except ValidationError as error:
        _raise("plan.json.j2", [Problem(f"what it renders is no plan: {error}")])
    else:
        _raise("plan.json.j2", [] if same else [Problem("what it renders is another plan than was made")])


def check_experiment(text: str, experiment: Experiment) -> None:
    """Raises InputError where train.yaml does not read back as the experiment."""
    import yaml

    try:
        loaded = Experiment.model_validate_json(json.dumps(_plain_yaml(text)))
    except (yaml.YAMLError, ValidationError, TypeError, ValueError) as error:
        _raise("train.yaml.j2", [Problem(f"what it renders is no experiment: {error}")])
    else:
        other = (
            []
            if loaded == experiment
            else [Problem("what it renders is another experiment than was planned")]
        )
        _raise("train.yaml.j2", other)


def _plain_yaml(text: str) -> object:
    """As yaml.safe_load, in a tenth of the time where libyaml is there."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def check_hostfile(text: str, place: Placement) -> None:
    """Raises InputError where a line is none of DeepSpeed's, or the hosts are not the plan's."""
    found: dict[str, int] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = HOST_LINE.match(line)
        if match is None or match[1] in found:
            problems.append(Problem(f"line {number} is {line!r}, should be one line 'HOST slots=N' a host"))
        else:
            found[match[1]] = int(match[2])
    hosts = place.hosts or (("localhost",) if place.nodes == 1 else ())
    wanted = dict(zip(hosts, place.slots, strict=False))
    if not problems and found != wanted:
        problems.append(Problem(f"it names {found or 'no hosts'}, the plan has {wanted or 'none to name'}"))
    _raise("hostfile.j2", problems)


def check_manifest(text: str, planned: Mapping[str, Any]) -> None:
    """Raises InputError where the PyTorchJob is none, or has another image, command or number of pods."""
    import yaml

    template = "pytorchjob.yaml.j2"
    try:
        found = yaml.safe_load(text)["spec"]["pytorchReplicaSpecs"]
        same = {
            kind: (
                found[kind]["replicas"],
                *(found[kind]["template"]["spec"]["containers"][0][key] for key in ("image", "command")),
            )
            for kind in found
        }
    except (yaml.YAMLError, LookupError, TypeError) as error:
        _raise(template, [Problem(f"what it renders is no PyTorchJob: {error!r}")])
        return
    wanted = {
        kind: (
            replica["replicas"],
            *(replica["template"]["spec"]["containers"][0][key] for key in ("image", "command")),
        )
        for kind, replica in planned["spec"]["pytorchReplicaSpecs"].items()
    }
    _raise(template, [] if same == wanted else [Problem("it starts something else than was planned")])


def check_shell(name: str, text: str) -> None:
    """Raises InputError where bash, if there is one, cannot parse a script. Nothing is executed."""
    bash = shutil.which("bash")
    if bash is None:
        return
    result = subprocess.run(  # noqa: S603 - `-n` reads commands without executing them
        [bash, "-n"], input=text.encode(), capture_output=True, timeout=30, check=False, env={"LC_ALL": "C"}
    )
    if result.returncode != 0 or result.stderr:  # an error inside [[ ]] leaves the status at 0
        _raise(f"{name}.j2", [Problem(f"bash cannot parse it: {result.stderr.decode().strip()}")])


def differences(rendered: Mapping[str, Any], planned: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, found, wanted) where ds_config.json leaves the planned sections; None stands for absent."""
    for key, wanted in planned.items():
        found = rendered.get(key)
        if key in FREE or found == wanted:
            continue
        if not isinstance(wanted, Mapping) or not isinstance(found, Mapping):
            yield key, found, wanted
            continue
        for name in {**wanted, **found}:
            if found.get(name) != wanted.get(name):
                yield f"{key}.{name}", found.get(name), wanted.get(name)
    for key in sorted(CLOSED):
        if key in rendered and key not in planned:
            yield key, rendered[key], None


def _text(value: Any) -> str:
    return "left out" if value is None else json.dumps(value)


def _near(near: str | None) -> str | None:
    return None if near is None else f"did you mean {near}?"


def _raise(template: str, problems: list[Problem]) -> None:
    if problems:
        raise InputError([Problem(p.message, file=template, remedy=p.remedy) for p in problems])
