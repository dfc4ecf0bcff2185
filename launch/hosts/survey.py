"""All hosts of a job, asked at the same time: what each says, and what is wrong with it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vdsgen.launch.backends.environment import local_devices, rank_environment
from vdsgen.launch.commands import Job, Machine
from vdsgen.launch.hosts.ask import Host, HostError
from vdsgen.launch.hosts.expected import Expected, PlannedHost, inputs_of
from vdsgen.launch.hosts.facts import HostFacts, InputRequest, LookRequest
from vdsgen.launch.hosts.finding import Finding
from vdsgen.launch.hosts.hardware import compare_devices, compare_limits, compare_memory
from vdsgen.launch.hosts.links import LinkRate, compare_links, rates_of
from vdsgen.launch.hosts.look import hashes
from vdsgen.launch.hosts.storage import compare_disks, compare_inputs
from vdsgen.launch.hosts.together import (
    LAUNCHER,
    Exchange,
    Marks,
    Meeting,
    Offset,
    compare_clocks,
    compare_marks,
    compare_meeting,
    offset_of,
)
from vdsgen.launch.hosts.versions import compare_rendered, compare_versions
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.rendered import NEEDED

LINKS = "vdsgen.model.link_rates"
"""What measures links; named, never imported, by launching."""
LINK_SECONDS = 45.0
SHARE_SECONDS = 5.0
"""For what one host writes to be seen by the others: network file systems take a moment."""
MEET_SECONDS = 5.0
EXCHANGES = 8
SAMPLES = 12
"""Files of a folder that hosts look for, so that another folder of the same name is told apart."""
MOST_AT_ONCE = 64

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Survey:
    """What was found out about the hosts of a job."""

    facts: dict[str, HostFacts] = field(default_factory=dict)
    """Of those that answered."""
    offsets: dict[str, Offset] = field(default_factory=dict)
    rates: list[LinkRate] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """What each part took."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the ranks of the job meet."""

    address: str
    port: int
    fixed: bool
    """Everyone must reach this very port; else any free one of this machine will do."""


@contextmanager
def scratch_in(output: Path) -> Iterator[Path]:
    """A folder in the run directory, removed in the end, as is the run directory where it was not there."""
    made = [path for path in (output, *output.parents) if not path.exists()]
    output.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".preflight-", dir=output))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            for path in made:
                path.rmdir()


class Surveyor:
    """Asks the hosts; `survey` holds what was found. Use it in a `with`: probes end with it."""

    def __init__(
        self, expected: Expected, experiment: Experiment, job: Job, machine: Machine, place: Place
    ) -> None:
        self.survey = Survey()
        self._expected = expected
        self._experiment = experiment
        self._job = job
        self._machine = machine
        self.place = place
        self._at_once = min(MOST_AT_ONCE, len(expected.hosts))
        self._pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="host")
        self._hosts: dict[str, Host] = {}

    def __enter__(self) -> Surveyor:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        self._pool.shutdown()

    def leave(self) -> None:
        """Ends the probes: there are no more questions."""
        # Not in the pool, whose threads may wait for answers: these end with the probes.
        with ThreadPoolExecutor(self._at_once) as closing:
            list(closing.map(Host.close, self._hosts.values()))
        self._hosts = {}

    @property
    def is_remote(self) -> bool:
        """Whether some of the job's hosts are not this machine."""
        return any(host not in self._machine.host_names for host in self._job.hosts)

    def reach(self) -> None:
        """Starts a probe on every host."""

        def start(planned: PlannedHost) -> Host:
            here = planned.name in self._machine.host_names or not self._job.hosts
            return Host(planned.name, self._machine, {}, here=here)

        planned = {host.name: host for host in self._expected.hosts}
        self._hosts = self._of_each("reach", planned, start)

    def look(self) -> None:
        """Versions, devices, memory, limits, disks, clocks and inputs of every host."""
        keys = {
            key: _samples(Path(path)) for key, path in inputs_of(self._experiment, reads_clips=True).items()
        }
        planned = {host.name: host for host in self._expected.hosts}

        def ask(host: Host) -> tuple[HostFacts, Offset]:
            paths = inputs_of(self._experiment, reads_clips=planned[host.name].reads_clips)
            asked = LookRequest(
                accelerators=not self._expected.on_cpu,
                directory=str(self._expected.directory),
                files=NEEDED,
                output=str(self._expected.output),
                nvme=self._expected.nvme,
                inputs={key: InputRequest(path=path, samples=keys[key]) for key, path in paths.items()},
            )
            offset = offset_of([_exchange(host) for _ in range(EXCHANGES)])
            told = host.ask("look", request=asked.model_dump_json(), seconds=60.0)
            return HostFacts.model_validate_json(told["facts"]), offset

        answers = self._of_each("reach", self._hosts, ask)
        survey = self.survey
        survey.facts = {name: facts for name, (facts, _) in answers.items()}
        survey.offsets = {name: offset for name, (_, offset) in answers.items()}
        here = hashes(self._expected.directory, NEEDED)
        survey.findings += compare_versions(survey.facts)
        survey.findings += compare_rendered(self._expected.directory, here, survey.facts)
        survey.findings += compare_clocks(survey.offsets)
        for name, facts in survey.facts.items():
            host = planned[name]
            if not self._expected.on_cpu:
                survey.findings += compare_devices(host, facts)
            survey.findings += compare_memory(self._expected, host, facts)
            survey.findings += compare_limits(self._expected, host, facts)
            survey.findings += compare_disks(self._expected, host, facts)
            paths = inputs_of(self._experiment, reads_clips=host.reads_clips)
            survey.findings += compare_inputs(paths, host, facts)

    def share(self, scratch: Path) -> None:
        """Whether all hosts see what each of them writes into the run directory."""
        written = {LAUNCHER: secrets.token_hex(8)}
        names = {LAUNCHER: "launcher"}
        (scratch / names[LAUNCHER]).write_text(written[LAUNCHER])
        failed: dict[str, str] = {}
        for index, name in enumerate(self._hosts):
            written[name], names[name] = secrets.token_hex(8), f"host-{index}"

        def write(host: Host) -> None:
            try:
                host.ask("mark", folder=str(scratch), name=names[host.name], token=written[host.name])
            except HostError as error:
                failed[host.name] = str(error)

        list(self._pool.map(write, self._hosts.values()))
        known = {name: token for name, token in written.items() if name not in failed}

        def read(host: Host) -> dict[str, str]:
            there = host.ask(
                "seen",
                folder=str(scratch),
                names=[names[name] for name in known],
                # Where it could not even write, waiting brings nothing.
                patience_seconds=0.0 if host.name in failed else SHARE_SECONDS,
            )["tokens"]
            return {name: there.get(names[name], "") for name in known}

        seen = self._of_each("reach", self._hosts, read)
        deadline = time.monotonic() + (0.0 if failed else SHARE_SECONDS)
        while True:
            mine = {name: _text(scratch / names[name]) for name in known}
            if mine == known or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        marks = Marks(known, failed, {**seen, LAUNCHER: mine})
        self.survey.findings += compare_marks(self._expected.output, marks)

    def meet(self) -> None:
        """Whether the port is free at which ranks meet, and every host reaches it."""
        first = self._expected.hosts[0].name
        if first not in self._hosts or not self.place.fixed:
            return
        token, taken, unreached = secrets.token_hex(8), None, {}
        try:
            self._hosts[first].ask("listen", port=self.place.port, token=token)
        except HostError as error:
            taken = str(error)

        def connect(host: Host) -> str:
            try:
                found = host.ask(
                    "connect",
                    address=self.place.address,
                    port=self.place.port,
                    patience_seconds=MEET_SECONDS,
                )
            except HostError as error:
                return str(error)
            return "" if found["greeting"] == token else "something else answers there"

        if taken is None:
            reasons = dict(zip(self._hosts, self._pool.map(connect, self._hosts.values()), strict=True))
            unreached = {name: reason for name, reason in reasons.items() if reason}
            with suppress(HostError):
                self._hosts[first].ask("quiet")
        meeting = Meeting(first, self.place.port, taken, unreached)
        self.survey.findings += compare_meeting(meeting)

    def measure_links(self) -> None:
        """Starts a small rank for every planned one, on its device, and has neighbours send to each other."""
        nodes = [str(len(host.ranks)) for host in self._expected.hosts]

        def ask(host: Host) -> dict[str, Any]:
            index = [planned.name for planned in self._expected.hosts].index(host.name)
            planned = self._expected.hosts[index]
            return host.ask(
                "ranks",
                seconds=LINK_SECONDS + 15,
                ranks={
                    "module": LINKS,
                    "first_rank": planned.first_rank,
                    "count": len(planned.ranks),
                    "world_size": self._expected.world_size,
                    "address": self.place.address,
                    "port": self.place.port,
                    "arguments": nodes,
                    "environment": self._rank_environment(index),
                    "seconds": LINK_SECONDS,
                },
            )

        answers = self._of_each("links", self._hosts, ask)
        failed = {name: answer for name, answer in answers.items() if "error" in answer}
        # Those that only waited for another rank say nothing about the reason.
        for name, answer in failed.items():
            if answer["error"] == "took too long" and len(failed) < len(answers):
                continue
            self.survey.findings.append(_no_links(name, answer))
        if failed or len(answers) < len(nodes):
            return
        measured = [one for answer in answers.values() for said in answer["results"].values() for one in said]
        self.survey.rates = rates_of(self._expected, measured)
        self.survey.findings += compare_links(self.survey.rates)

    def _rank_environment(self, node: int) -> dict[str, str | None]:
        """As the ranks of the job will have it, PATH aside, which is the host's own."""
        environment = rank_environment(self._job, self._machine, "preflight")
        environment.pop("PATH")
        if not self._job.on_cpu:
            here = None if self._job.hosts[1:] else local_devices(self._job, self._machine)
            devices = tuple(map(str, self._job.devices[node])) if self._job.devices else here
            if devices is not None:
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        return environment

    def _of_each(
        self, check: str, asked: Mapping[str, Any], call: Callable[[Any], Answer]
    ) -> dict[str, Answer]:
        """The answers of those that gave one, at the same time; a finding for each other, which is not asked
        again."""

        def attempt(one: Any) -> Answer | HostError:
            try:
                return call(one)
            except HostError as error:
                return error

        answers = dict(zip(asked, self._pool.map(attempt, asked.values()), strict=True))
        found: dict[str, Answer] = {}
        for name, answer in answers.items():
            if isinstance(answer, HostError):
                self.survey.findings.append(
                    Finding(
                        severity="error", check=check, host=name, message=str(answer), remedy=answer.remedy
                    )
                )
                host = self._hosts.pop(name, None)
                if host is not None:
                    host.close()
            else:
                found[name] = answer
        return found


def _exchange(host: Host) -> Exchange:
    asked = time.time()
    told = float(host.ask("clock")["seconds"])
    return Exchange(asked, told, time.time())


def _samples(path: Path) -> dict[str, int]:
    """The first files below a folder, with their sizes."""
    found: dict[str, int] = {}
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(name for name in names if name[0] != ".")[: SAMPLES - len(found)]:
            with suppress(OSError):
                found[Path(folder, name).relative_to(path).as_posix()] = Path(folder, name).stat().st_size
        if len(found) >= SAMPLES:
            break
    return found


def _no_links(host: str, answer: Mapping[str, Any]) -> Finding:
    words = [line.strip() for line in answer.get("words", "").splitlines() if line.strip()]
    said = f": {words[-1]}" if words else ""
    return Finding(
        severity="error",
        check="links",
        host=host,
        message=f"ranks do not reach each other: rank {answer['rank']} {answer['error']}{said}",
        remedy="open all ports between the hosts, or name the network: NCCL_SOCKET_IFNAME, "
        "GLOO_SOCKET_IFNAME; NCCL_DEBUG=INFO says more",
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
