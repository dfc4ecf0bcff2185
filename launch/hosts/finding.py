"""One thing that pre-flight found: how bad it is, where, what it is, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from vdsgen.spec.base import Spec

Severity = Literal["error", "warning", "note"]
"""error: the job would fail, or not be the planned one. warning: it may be slower, or fail later. note: worth
knowing."""
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Finding(Spec):
    severity: Severity
    check: str
    """Which check found it: `versions`, `devices`, ..."""
    host: str
    """As the hostfile names it; several are joined by a comma where it takes them together."""
    message: str
    remedy: str | None = None

    def __str__(self) -> str:
        head = f"{self.severity}: {self.host}: {self.message}"
        return head if self.remedy is None else f"{head}\n  -> {self.remedy}"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, otherwise in order; one that is found twice is told once."""
    return sorted(dict.fromkeys(findings), key=lambda finding: SEVERITIES.index(finding.severity))


def errors(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]
