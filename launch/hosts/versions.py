"""Whether all hosts run the same: packages, modules, and the files of the rendered directory. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from vdsgen.launch.hosts.facts import HostFacts
from vdsgen.launch.hosts.finding import Finding, Severity
from vdsgen.launch.hosts.words import names

MUST_BE_EQUAL = ("vdsgen", "torch", "deepspeed", "CUDA", "HIP", "NCCL")
"""Ranks of different ones fail, or train something else. Python: in its first two numbers."""
REQUIRED = ("torch", "deepspeed", "av", "numpy")
"""What every rank imports."""


def compare_versions(facts: Mapping[str, HostFacts]) -> list[Finding]:
    """Each host that differs from most, package by package; of as many on both sides, the first host's."""
    found = [*_missing(facts)]
    for package in dict.fromkeys(name for one in facts.values() for name in one.versions):
        values = {host: one.versions.get(package, "none") for host, one in facts.items()}
        if package in REQUIRED:
            values = {host: value for host, value in values.items() if value != "none"}
        found += _differing("versions", package, values, _severity(package, values))
    drivers = {host: one.driver for host, one in facts.items() if one.driver is not None}
    found += _differing("versions", "the driver", drivers, "warning")
    if not any(finding.message.startswith("vdsgen ") for finding in found):
        codes = {host: one.code_sha256[:12] for host, one in facts.items()}
        remedy = "install the same vdsgen on all hosts: the version is the same, its modules are not"
        found += _differing("versions", "vdsgen's modules (hash)", codes, "error", remedy)
    return found


def _severity(package: str, values: Mapping[str, str]) -> Severity:
    if package == "python":
        releases = {value.rpartition(".")[0] for value in values.values()}
        return "error" if len(releases) > 1 else "warning"
    return "error" if package in MUST_BE_EQUAL else "warning"


def _missing(facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    for host, one in facts.items():
        lacking = [name for name in REQUIRED if name not in one.versions]
        if lacking:
            yield Finding(
                severity="error",
                check="versions",
                host=host,
                message=f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed",
                remedy="pip install 'vdsgen[train]' there, into the interpreter that jobs are started with",
            )


def _differing(
    check: str, what: str, values: Mapping[str, str], severity: Severity, remedy: str | None = None
) -> Iterator[Finding]:
    """A finding for every host whose value is not the usual one."""
    if len(set(values.values())) <= 1:
        return
    usual, _ = Counter(values.values()).most_common(1)[0]
    others = [host for host, value in values.items() if value == usual]
    for host, value in values.items():
        if value != usual:
            yield Finding(
                severity=severity,
                check=check,
                host=host,
                message=f"{what} is {value}, on {names(others)} {usual}",
                remedy=remedy or f"install the same on all hosts: {what} {usual}",
            )


def compare_rendered(
    directory: Path, here: Mapping[str, str], facts: Mapping[str, HostFacts]
) -> list[Finding]:
    """`here`: SHA-256 of each file as the launcher reads it."""
    found = []
    for host, one in facts.items():
        missing = [name for name in here if name not in one.rendered]
        other = [name for name in here if one.rendered.get(name, here[name]) != here[name]]
        if missing:
            found.append(
                _rendered(
                    host, f"{directory} has no {names(missing)} there", "put it on a folder that all share"
                )
            )
        if other:
            found.append(
                _rendered(
                    host,
                    f"{directory}: {names(other)} has other bytes there than here",
                    "its ranks would train something else: copy the directory again, or share its folder",
                )
            )
    return found


def _rendered(host: str, message: str, remedy: str) -> Finding:
    return Finding(severity="error", check="rendered directory", host=host, message=message, remedy=remedy)
