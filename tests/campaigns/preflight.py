"""Faults of hosts, one after the other, and whether pre-flight names each with its host.

python -m tests.campaigns.preflight

Two hosts behind real sshds: first two addresses of this machine, the second of which runs its commands in
namespaces of its own (mounts, networks); then two network namespaces joined by a switch. Needs root, sshd,
ip, tc, pdsh and mpirun. Exits with 1 where a fault was not named, another host was blamed, or a lab without
a fault was not found ready.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaigns import figures
from tests.launch.backends import namespaces
from tests.launch.backends.namespaces import Network, network
from tests.launch.backends.sshd import SSHD_PATH
from tests.launch.hosts.faults import FAULTS, Fault
from tests.launch.hosts.lab import FIRST, ROOT, TwoHosts, render_for, two_hosts
from tests.model.training import write_clips
from vdsgen.launch.hosts.report import Report
from vdsgen.spec.lab import Link

COMMAND = "python -m tests.campaigns.preflight"
CLEAN_RUNS = 10
WHOLE_RUNS = 3
ON_SWITCH = ("host1", "host2")
FAST = Link(bandwidth_gb_per_second=0.05, latency_microseconds=50.0)
"""What the plan counts on between the namespaces, whose switch carries more; a throttled one carries less."""


@dataclass(frozen=True, slots=True)
class NetworkFault:
    """A fault of the network between two hosts, the check that is to find it, and whom it must name."""

    name: str
    check: str
    hosts: tuple[str, ...]
    words: str
    severity: str
    inject: Callable[[Network], AbstractContextManager[None]]


def main() -> int:
    if reason := namespaces.missing():
        print(f"cannot run here: {reason}", file=sys.stderr)
        return 2
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        with two_hosts(Path(place) / "lab") as lab:
            clean = [_clean(lab) for _ in range(CLEAN_RUNS)]
            for number, fault in enumerate(FAULTS):
                told.append(_tried(lab, fault, Path(place) / f"fault-{number}"))
                _say(told[-1])
            told.append(_broken_clips(lab, Path(place)))
            _say(told[-1])
            load, whole = os.getloadavg()[0], [_whole(lab) for _ in range(WHOLE_RUNS)]
        on_switch, told_there = _on_switch(Path(place))
    told += told_there
    found = {
        "clean_runs": len(clean) + len(on_switch),
        "clean_runs_ready": sum(report.ready and not report.findings for report in (*clean, *on_switch)),
        "clean_seconds": statistics.median(report.seconds for report in clean),
        "faults": told,
        "whole_seconds": [report.seconds for report in whole],
        "whole_part_seconds": [report.part_seconds for report in whole],
        "whole_load_average": load,
        "whole_ready": sum(report.ready for report in whole),
    }
    figures.write("preflight", COMMAND, found)
    lost = [one["name"] for one in told if not one["named"] or one["others_blamed"]]
    ready = found["clean_runs_ready"] == found["clean_runs"] and found["whole_ready"] == WHOLE_RUNS
    print(f"{len(told)} faults, not named or another blamed: {lost or 'none'}")
    return 1 if lost or not ready else 0


def _say(one: Mapping[str, Any]) -> None:
    print(f"{'named' if one['named'] else 'LOST '} {one['seconds']:6.1f} s  {one['name']}", flush=True)


def _clean(lab: TwoHosts) -> Report:
    return lab.look()


def _whole(lab: TwoHosts) -> Report:
    return lab.look(links=True, rehearsal=True)


def _tried(lab: TwoHosts, fault: Fault, scratch: Path) -> dict[str, Any]:
    scratch.mkdir()
    with fault.inject(lab, scratch):
        report = lab.look()
    return _record(fault.name, fault.check, fault.host.split(", "), fault.words, fault.severity, report)


def _record(
    name: str, check: str, hosts: list[str], words: str, severity: str, report: Report
) -> dict[str, Any]:
    """`named`: its check found it, on its host, in its words, with something to do. `others_blamed`: findings
    that name a host which has no fault."""
    named = [
        finding
        for finding in report.findings
        if (finding.check, finding.severity) == (check, severity)
        and finding.host == ", ".join(hosts)
        and words in finding.message
        and finding.remedy
    ]
    # The interpreter's place is this machine's, and nobody else's concern.
    said = named[0].message.splitlines()[0].replace(sys.executable, "python") if named else ""
    blamed = [finding.host for finding in report.findings if not set(finding.host.split(", ")) <= set(hosts)]
    return {
        "name": name,
        "check": check,
        "severity": severity,
        "named": bool(named),
        "others_blamed": len(blamed),
        "refused": not report.ready,
        "seconds": report.seconds,
        "message": said if named else [str(one) for one in report.findings],
    }


def _broken_clips(lab: TwoHosts, place: Path) -> dict[str, Any]:
    """Every host sees the same files, and no rank can read them: only a rehearsal can know. The rank that
    says so first is named."""
    whole = {path: path.read_bytes() for path in lab.clips.iterdir()}
    for path, content in whole.items():
        path.write_bytes(b"\0" * len(content))
    try:
        report = lab.look(links=True, rehearsal=True)
    finally:
        for path, content in whole.items():
            path.write_bytes(content)
    first = next((one.host for one in report.findings if one.check == "rehearsal"), FIRST)
    return _record("clips that cannot be read", "rehearsal", [first], "failed with code 2", "error", report)


def _on_switch(place: Path) -> tuple[list[Report], list[dict[str, Any]]]:
    """Hosts with networks of their own: reports without a fault, and records of faults."""
    told = []
    with network(place / "network", 2) as made:
        render_for(
            place / "plan", write_clips(place / "clips"), hosts=ON_SWITCH, inter_node=FAST, intra_node=FAST
        )
        clean = [_asked(made, place) for _ in range(2)]
        for fault in NETWORK_FAULTS:
            with fault.inject(made):
                report = _asked(made, place)
            told.append(
                _record(fault.name, fault.check, list(fault.hosts), fault.words, fault.severity, report)
            )
            _say(told[-1])
    return clean, told


def _asked(made: Network, place: Path) -> Report:
    """From the desk of the network, links included."""
    command = made.on(
        "desk", sys.executable, "-m", "vdsgen", "preflight", str(place / "plan"),
        "--output", str(place / "run"), "--launcher", "ssh", "--no-rehearsal", "--json",
    )  # fmt: skip
    environment = os.environ | {
        "PATH": f"{made.folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    return Report.model_validate_json(ended.stdout)


def _inside(made: Network, host: str, *argv: str) -> None:
    subprocess.run(
        ["ip", "netns", "exec", f"{made.prefix}-{host}", *argv],
        check=True,
        env={**os.environ, "PATH": SSHD_PATH},
    )


@contextmanager
def _cut_off(made: Network) -> Iterator[None]:
    made.cut_off("host2")
    yield
    made.join_again("host2")
    time.sleep(1)  # the switch learns again


@contextmanager
def _no_route(made: Network) -> Iterator[None]:
    """What the second sends to the first goes nowhere; the desk reaches both."""
    first = made.address("host1")
    _inside(made, "host2", "ip", "route", "add", "blackhole", f"{first}/32")
    yield
    _inside(made, "host2", "ip", "route", "del", "blackhole", f"{first}/32")


@contextmanager
def _wrong_name(made: Network) -> Iterator[None]:
    """The second host knows the first by an address that nobody has."""
    names = namespaces.OF_NAMESPACES / f"{made.prefix}-host2" / "hosts"
    text = names.read_text()
    names.write_text(text.replace(made.address("host1"), "10.77.0.99"))
    yield
    names.write_text(text)


@contextmanager
def _slow(made: Network) -> Iterator[None]:
    """100 megabits a second, a quarter of what the plan counts on."""
    _inside(
        made, "host2", "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "100mbit", "burst", "64kb",
        "latency", "200ms",
    )  # fmt: skip
    yield
    _inside(made, "host2", "tc", "qdisc", "del", "dev", "eth0", "root")


NO_WAY = "does not reach host1"
NETWORK_FAULTS = (
    NetworkFault("host cut off", "reach", ("host2",), "timed out", "error", _cut_off),
    NetworkFault("no route to the first host", "ports", ("host2",), NO_WAY, "error", _no_route),
    NetworkFault("wrong address of the first host", "ports", ("host2",), NO_WAY, "error", _wrong_name),
    NetworkFault("slow link", "links", ON_SWITCH, "the plan counts on 0.05 GB/s", "warning", _slow),
)


def section(found: Mapping[str, Any]) -> str:
    faults = found["faults"]
    named = sum(one["named"] and not one["others_blamed"] for one in faults)
    seconds = [one["seconds"] for one in faults if one["check"] != "rehearsal"]
    rows = "\n".join(
        f"| {one['name']} | {one['check']} | {one['severity']} | {one['seconds']:.1f} s | "
        f"{'yes' if one['named'] else '**no**'} |"
        for one in faults
    )
    whole = found["whole_seconds"]
    rehearsal = [part["rehearsal"] for part in found["whole_part_seconds"]]
    rehearsals = f"{min(rehearsal):.0f} to {max(rehearsal):.0f}"
    return f"""\
## Hosts that are not ready

Two hosts behind real `sshd`s, one rank each, and one fault at a time, done for real: other files mounted on
one host, its network taken away, its port held by another program, its disk of 16 MiB. GPUs are a stand-in
for `nvidia-smi`. **{named} of {len(faults)} faults were named** by the check that is to find them, with the
right host, no other, and something to do. {found["clean_runs_ready"]} of {found["clean_runs"]}
looks at hosts without a fault found nothing.

A look at two hosts without a fault takes {found["clean_seconds"]:.1f} s (median); with a fault
{min(seconds):.1f} to {max(seconds):.1f} s, the longest for hosts that never answer. A whole pre-flight, with
links and two rehearsed steps of DeepSpeed, took {min(whole):.0f} to {max(whole):.0f} s, {rehearsals} s of
them the rehearsal; {found["whole_load_average"]:.0f} processes wanted the processors when it began.

| fault | check | finding | found after | named |
|---|---|---|---:|---|
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
