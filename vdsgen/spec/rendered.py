"""Reading a rendered directory: what launching and training both start from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vdsgen.errors import VdsgenError
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.load import load_experiment
from vdsgen.spec.plan import Plan
from vdsgen.spec.run import Layout, layout_of, read_json_object
from vdsgen.spec.shown import shown

NEEDED = ("ds_config.json", "plan.json", "train.yaml", "hostfile")
REACHABLE = re.compile(
    r"([A-Za-z_][A-Za-z0-9._-]{0,63}@)?[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?", re.ASCII
)
"""A host as ssh reaches it. Nothing that begins with `-`: DeepSpeed's runner puts the first host into a
command line of ssh's without quoting it (launcher/runner.py:486,501), where such a name would be an option.
Nothing that pdsh expands (`a[1-4]`, `^file`, `/regex/`; pdsh(1), HOSTLIST EXPRESSIONS)."""
MOST_HOSTFILE_BYTES = 1024**2
AGAIN = "render the directory again: vdsgen generate EXPERIMENT --lab LAB --out DIR"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered directory, read and checked."""

    path: Path
    plan: Plan
    plan_sha256: str
    """Of plan.json's bytes."""
    experiment: Experiment
    ds_config: Mapping[str, Any]
    layout: Layout
    """What ds_config.json asks for; where it was edited by hand, the plan says something else."""
    hosts: Mapping[str, int]
    """Host -> slots of the hostfile; empty where it names none."""


def read_rendered(directory: Path) -> Rendered:
    """Raises VdsgenError where a file is missing or is not what `vdsgen generate` writes."""
    if not directory.is_dir():
        raise VdsgenError(f"{directory} is no directory", remedy=AGAIN)
    missing = [name for name in NEEDED if not (directory / name).is_file()]
    if missing:
        raise VdsgenError(
            f"{directory} is no rendered directory: it has no {', '.join(missing)}", remedy=AGAIN
        )
    plan_bytes = (directory / "plan.json").read_bytes()
    try:
        plan = Plan.model_validate_json(plan_bytes)
    except ValidationError as error:
        raise VdsgenError(f"{directory / 'plan.json'}: {error}", remedy=AGAIN) from error
    ds_config = read_json_object(directory / "ds_config.json")
    rendered = Rendered(
        path=directory,
        plan=plan,
        plan_sha256=hashlib.sha256(plan_bytes).hexdigest(),
        experiment=load_experiment(directory / "train.yaml"),
        ds_config=ds_config,
        layout=layout_of(ds_config),
        hosts=read_hostfile(directory / "hostfile"),
    )
    _check_slots(rendered)
    if rendered.experiment.training.saving.every_steps == "auto":
        raise VdsgenError(
            f"{directory / 'train.yaml'}: training.saving.every_steps is auto, should be a number by now",
            remedy=AGAIN,
        )
    return rendered


def _check_slots(rendered: Rendered) -> None:
    """Raises VdsgenError where the hostfile has too few or too many slots for the ranks, or lacks a host."""
    nodes, hosts, directory = rendered.plan.nodes, rendered.hosts, rendered.path
    ranks = sum(hosts.values())
    if nodes:
        # A host's slots are all its GPUs; plan.json says which of them are used.
        names = tuple(node.host or "localhost" for node in nodes)
        lacking = [
            f"{name} has no GPU {max(node.devices)} (slots={hosts[name]})"
            for name, node in zip(names, nodes, strict=True)
            if name in hosts
            and not rendered.plan.inputs.pool.on_processors
            and max(node.devices) >= hosts[name]
        ]
        if hosts and (tuple(hosts) != names or lacking):
            raise VdsgenError(
                f"{directory}: hostfile names {', '.join(hosts)}, plan.json is for {', '.join(names)}"
                if not lacking
                else f"{directory}: {'; '.join(lacking)}, which plan.json uses",
                remedy="change the lab file, and render the directory again",
            )
        ranks = sum(len(node.devices) for node in nodes)
    if (hosts or nodes) and rendered.layout.world_size != ranks:
        raise VdsgenError(
            f"{directory}: ds_config.json makes {rendered.layout.world_size} ranks "
            f"({rendered.layout}), {'plan.json has' if nodes else 'hostfile has'} {ranks} "
            f"{'devices' if nodes else 'slots'}",
            remedy="change both, or render the directory again",
        )


def read_hostfile(path: Path) -> dict[str, int]:
    """Host -> slots. Raises VdsgenError where the file is no hostfile, naming it and the line."""
    with path.open("rb") as stream:
        content = stream.read(MOST_HOSTFILE_BYTES + 1)
    if len(content) > MOST_HOSTFILE_BYTES:
        raise VdsgenError(f"{path}: is larger than {MOST_HOSTFILE_BYTES} bytes; a hostfile never is")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise VdsgenError(
            f"{path}: hostfile:{line}: no UTF-8 text (byte 0x{content[error.start]:02x})"
        ) from error
    return parse_hostfile(text)


def parse_hostfile(text: str) -> dict[str, int]:
    """Host -> slots, of a hostfile as DeepSpeed reads it (launcher/runner.py:225-254), but for names that
    ssh, pdsh or a shell would take for something else than a host."""
    slots: dict[str, int] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.fullmatch(r"[ \t]*(\S+)[ \t]+slots=([0-9]{1,6})[ \t]*", line)
        if match is None:
            raise VdsgenError(f"hostfile:{number}: {shown(line)} is no `HOST slots=N`")
        if REACHABLE.fullmatch(match[1]) is None:
            raise VdsgenError(
                f"hostfile:{number}: {shown(match[1])} is no name of a host",
                remedy="HOST or USER@HOST, of letters, digits, `.`, `_` and `-`; ports and other options go "
                "into "
                "~/.ssh/config",
            )
        if match[1] in slots:
            raise VdsgenError(f"hostfile:{number}: {match[1]} is there twice")
        slots[match[1]] = int(match[2])
    return slots
