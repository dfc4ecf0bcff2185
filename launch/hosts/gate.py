"""Between `vdsgen launch` and its first rank: hosts that are not ready are not started on."""

from __future__ import annotations

from vdsgen.errors import InputError, Problem
from vdsgen.launch.hosts.check import REHEARSAL_SECONDS, check
from vdsgen.launch.hosts.report import text_of
from vdsgen.launch.start import Prepared, Request


def refuse_unready(prepared: Prepared, request: Request) -> None:
    """Asks the hosts; with `--preflight` measures links and rehearses besides, and shows the whole report.

    Raises InputError with everything that speaks against a start; warnings are printed.
    """
    whole = request.preflight
    report = check(
        prepared,
        request,
        links=whole,
        rehearsal=whole,
        rehearsal_seconds=REHEARSAL_SECONDS,
        show=(lambda text: print(f"{text} ...", flush=True)) if whole else (lambda _: None),
    )
    found = [finding for finding in report.findings if finding.severity == "error"]
    if found:
        raise InputError(
            [Problem(f"{finding.host}: {finding.message}", remedy=finding.remedy) for finding in found]
        )
    if whole:
        print(text_of(report), flush=True)
        return
    for finding in report.findings:
        if finding.severity == "warning":
            print(finding, flush=True)
