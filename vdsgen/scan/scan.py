"""A scan, from asking to text."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vdsgen.catalog.hardware import lab_problems
from vdsgen.errors import VdsgenError
from vdsgen.scan.answer import Answer, this_machine
from vdsgen.scan.hosts import Heard, ask_hosts
from vdsgen.scan.lab_text import lab_text, lab_values
from vdsgen.scan.network import network_said
from vdsgen.scan.node import Node, node_of
from vdsgen.scan.pools import PoolText, pools_of
from vdsgen.scan.slurm import ask_slurm, partitions_of, slurm_pools
from vdsgen.spec.lab import Lab

HEADING = (
    "Written by `vdsgen scan`{sources}; edit what it could not know. `vdsgen catalog gpus` and `vdsgen "
    "catalog links` list names and figures, `vdsgen calibrate` measures them."
)
SOURCES = {"nvml": "NVML", "nvidia-smi": "nvidia-smi, for want of nvidia-ml-py"}


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found."""

    text: str
    """The lab file."""
    lab: dict[str, Any]
    """The same without comments."""
    answers: tuple[Answer, ...]
    missed: tuple[tuple[str, str], ...]
    """Hosts and partitions that are not in it, and why."""
    remarks: tuple[str, ...]


def scan_hosts(hosts: Sequence[str], *, together: bool = False) -> Scan:
    """The hosts, by ssh; this machine, if it is one of them, without. Those without GPUs count only where
    none has any. Raises VdsgenError where none is left."""
    here = {"localhost", "127.0.0.1", socket.gethostname(), socket.gethostname().partition(".")[0]}
    others = tuple(host for host in hosts if host not in here)
    heard = {answer.host: answer for answer in ask_hosts(others)} if others else {}
    for host in hosts:
        if host in here:
            heard[host] = Heard(host, this_machine())
    nodes: list[Node] = []
    missed: list[tuple[str, str]] = []
    answers: list[Answer] = []
    for host in hosts:
        found = heard[host]
        if found.answer is None:
            missed.append((host, found.failure or "no answer"))
            continue
        answers.append(found.answer)
        try:
            nodes.append(node_of(found.answer, host))
        except VdsgenError as error:
            missed.append((host, str(error)))
    if any(not node.on_processors for node in nodes):
        missed += [(node.host, node.remarks[0]) for node in nodes if node.on_processors]
        nodes = [node for node in nodes if not node.on_processors]
    if not nodes:
        reasons = "; ".join(f"{host}: {reason}" for host, reason in missed[:8])
        raise VdsgenError(
            f"no host can be written: {reasons}",
            remedy="`ssh -o BatchMode=yes HOST python3 --version` must work for each, its key known",
        )
    return _scan(pools_of(nodes, named=True, together=together), answers, missed)


def scan_here() -> Scan:
    """This machine, and SLURM's partitions where there are some. Without GPUs in either: its processor."""
    answer = this_machine()
    missed: list[tuple[str, str]] = []
    pools: list[PoolText] = []
    if answer.gpus.devices:
        pools += pools_of([node_of(answer, answer.host)], named=False)
    try:
        printed = ask_slurm()
    except VdsgenError as error:
        missed.append(("SLURM", error.message))
        printed = None
    if printed is not None:
        of_slurm, left_out = slurm_pools(partitions_of(printed), network_said(answer))
        taken = {str(pool.keys["name"].value) for pool in pools}
        pools += [pool for pool in of_slurm if str(pool.keys["name"].value) not in taken]
        missed += [("SLURM", reason) for reason in left_out]
        if not of_slurm and not left_out:
            missed.append(("SLURM", "no partition that is up has GPUs"))
    if not pools:
        pools = pools_of([node_of(answer, answer.host)], named=False)
    return _scan(pools, [answer], missed)


def _scan(pools: Sequence[PoolText], answers: Sequence[Answer], missed: Sequence[tuple[str, str]]) -> Scan:
    values = lab_values(pools)
    _check(values)
    sources = " and ".join(sorted({SOURCES[answer.gpus.by] for answer in answers if answer.gpus.devices}))
    heading = [HEADING.format(sources=f" (GPUs by {sources})" if sources else "")]
    heading += [f"Not in it: {name}: {' '.join(reason.split())}" for name, reason in missed]
    remarks = tuple(remark for pool in pools for remark in pool.remarks)
    return Scan(lab_text(pools, heading), values, tuple(answers), tuple(missed), remarks)


def _check(values: dict[str, Any]) -> None:
    """What machines answered may be anything: the file holds only what commands will take."""
    try:
        problems = lab_problems(Lab.model_validate_json(json.dumps(values)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise VdsgenError(f"what was found makes no lab file: {place}: {first['msg']}") from None
    if problems:
        raise VdsgenError(f"what was found makes no lab file: {problems[0]}")
