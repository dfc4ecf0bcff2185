"""A lab of two hosts behind a real sshd, the second of which can be made to have other files, limits and
networks than the first: its commands run in namespaces of their own."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.forks.start import free_port
from tests.launch.backends.sshd import HOSTS, running_sshd
from tests.model.training import render_tiny, write_clips
from tests.render.plans import plan_of, pool_of
from vdsgen.launch.hosts.check import check
from vdsgen.launch.hosts.report import Report
from vdsgen.launch.start import Request, prepare
from vdsgen.spec.lab import Link

ROOT = Path(__file__).parents[3]
FIRST, SECOND = HOSTS
MIB = 1024**2
PLAIN = 'exec sh -c "$SSH_ORIGINAL_COMMAND"'
LINK = Link(bandwidth_gb_per_second=0.01, latency_microseconds=50.0)
"""Slow enough for loopback and gloo on any machine."""


@dataclass
class TwoHosts:
    """A rendered plan for both, one rank each, and what is wrong with the second."""

    folder: Path
    ssh: Path
    """Put first on PATH."""
    port: int = field(default_factory=free_port)
    first: str = PLAIN
    second: str = PLAIN

    @property
    def plan(self) -> Path:
        return self.folder / "plan"

    @property
    def clips(self) -> Path:
        return self.folder / "clips"

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "1"

    @property
    def known_hosts(self) -> Path:
        return self.ssh / "known_hosts"

    @contextmanager
    def on_first(self, *, before: str) -> Iterator[None]:
        """Its commands run after the shell's words `before`."""
        self.first = f"{before}\n{PLAIN}"
        self.write()
        try:
            yield
        finally:
            self.first = PLAIN
            self.write()

    @contextmanager
    def on_second(self, *, before: str = "", mounts: Sequence[str] = (), net: bool = True) -> Iterator[None]:
        """Its commands run after the shell's words `before`, with what `mounts` (arguments of mount(8)) put
        in the place of its files, and without a network where there is no `net`."""
        inside = " &&\n".join([*(f"mount {words}" for words in mounts), *filter(None, [before]), PLAIN])
        own = ["--mount", "--propagation", "private"] if mounts else []
        own += [] if net else ["--net"]
        self.second = f"exec unshare {shlex.join([*own, 'sh', '-c', inside])}" if own else inside
        self.write()
        try:
            yield
        finally:
            self.second = PLAIN
            self.write()

    def write(self) -> None:
        """The program that runs in place of each command of a login."""
        script = self.folder / "through"
        chosen = f'case "$SSH_CONNECTION" in\n*" {SECOND} "*)\n{self.second}\n;;\nesac\n{self.first}'
        script.write_text(f"#!/bin/sh\n{chosen}\n")
        script.chmod(0o755)

    def look(self, *, links: bool = False, rehearsal: bool = False, run: Path | None = None) -> Report:
        """A pre-flight from the folder of the lab."""
        request = Request(self.plan, run or self.run, launcher="ssh", preflight=True)
        prepared = prepare(request)
        return check(prepared, request, links=links, rehearsal=rehearsal, show=lambda _: None)


def render_for(directory: Path, clips: Path, **changes: Any) -> Path:
    """A plan of two stages, one a host, that both hosts have room for."""
    values: dict[str, Any] = {"hosts": HOSTS, "gpu": "cpu", "intra_node": LINK, "inter_node": LINK}
    values |= {"host_memory_gib": 1.0, **changes}
    pool = pool_of(values.pop("nodes", 2), values.pop("gpus_per_node", 1), **values)
    memory = {"peak_bytes": 200 * MIB, "reserve_bytes": 100 * MIB}
    stages = tuple(
        stage.model_copy(update={"memory": stage.memory.model_copy(update=memory)})
        for stage in plan_of(2, 1).stages
    )
    return render_tiny(directory, clips, pipeline=2, data=1, pool=pool, stages=stages)


@contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """The environment and the working directory are its own meanwhile."""
    folder.mkdir()
    through = folder / "through"
    with pytest.MonkeyPatch.context() as patch, running_sshd(folder / "ssh", through=through) as ssh:
        made = TwoHosts(folder, ssh)
        made.write()
        write_clips(made.clips)
        render_for(made.plan, made.clips)
        patch.setenv("PATH", f"{ssh}:{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("MASTER_PORT", str(made.port))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(folder)
        yield made
