"""Pre-flight from its first question to its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vdsgen.launch.backends.port import master_port
from vdsgen.launch.commands import is_remote
from vdsgen.launch.hosts.expected import Expected, expected_of
from vdsgen.launch.hosts.finding import errors
from vdsgen.launch.hosts.rehearsal import STEPS, Rehearsal, rehearse
from vdsgen.launch.hosts.report import Report, report_of
from vdsgen.launch.hosts.survey import Place, Survey, Surveyor, scratch_in
from vdsgen.launch.start import Prepared, Request, prepare
from vdsgen.spec.checkpoints import read_checkpoints

REHEARSAL_SECONDS = 600.0
AFTER_ERRORS = "not tried: the errors below come first"
NOT_ASKED = "not asked for"

Show = Callable[[str], None]


def check(
    prepared: Prepared,
    request: Request,
    *,
    links: bool = True,
    rehearsal: bool = True,
    rehearsal_seconds: float = REHEARSAL_SECONDS,
    show: Show,
) -> Report:
    """Looks at every host of the job. Raises OSError where the run directory cannot be made.

    Links are measured, and the job rehearsed, only where nothing before it speaks against. `show` is told
    what is being done.
    """
    began = time.monotonic()
    expected = _expected(prepared)
    skipped: dict[str, str] = {}
    rehearsed: Rehearsal | None = None
    surveyor = Surveyor(
        expected, prepared.rendered.experiment, prepared.job, prepared.machine, meeting_place(prepared)
    )
    survey = surveyor.survey
    with scratch_in(prepared.job.output) as scratch, surveyor:
        _ask_all(surveyor, expected, scratch, skipped, show)
        if errors(survey.findings):
            skipped |= {"links": AFTER_ERRORS, "rehearsal": AFTER_ERRORS}
        elif not links:
            skipped |= {"links": NOT_ASKED, "rehearsal": NOT_ASKED}
        else:
            if expected.world_size == 1:
                skipped["links"] = "one rank has no neighbour"
            else:
                show("Measuring links between ranks")
                with _timed(survey, "links"):
                    surveyor.measure_links()
            if not rehearsal:
                skipped["rehearsal"] = NOT_ASKED
            elif errors(survey.findings):
                skipped["rehearsal"] = AFTER_ERRORS
            else:
                surveyor.leave()
                show(f"Rehearsing {STEPS} steps with {expected.world_size} ranks")
                with _timed(survey, "rehearsal"):
                    rehearsed, found = rehearse(
                        _rehearsal(request, scratch), expected, rehearsal_seconds, show
                    )
                survey.findings += found
    return report_of(expected, survey, rehearsed, skipped=skipped, seconds=time.monotonic() - began)


def _ask_all(
    surveyor: Surveyor, expected: Expected, scratch: Path, skipped: dict[str, str], show: Show
) -> None:
    """Everything that needs a question and an answer only."""
    survey = surveyor.survey
    show(f"Asking {', '.join(host.name for host in expected.hosts[:4])}{', ...' * (len(expected.hosts) > 4)}")
    with _timed(survey, "hosts"):
        surveyor.reach()
        surveyor.look()
        if surveyor.is_remote:
            surveyor.share(scratch)
        else:
            skipped["shared folder"] = "one host shares with nobody"
        if surveyor.place.fixed:
            surveyor.meet()
        else:
            skipped["ports"] = "any free one will do"


def meeting_place(prepared: Prepared) -> Place:
    """Where the launcher lets ranks meet."""
    job, machine = prepared.job, prepared.machine
    if prepared.launcher in ("ssh", "openmpi") or is_remote(job, machine):
        return Place(job.hosts[0].rpartition("@")[2], master_port(machine), fixed=True)
    return Place("127.0.0.1", machine.free_port, fixed=False)


def _expected(prepared: Prepared) -> Expected:
    complete, _ = read_checkpoints(prepared.job.output)
    here = min(prepared.machine.host_names - {"localhost", "127.0.0.1"}, key=len, default="localhost")
    return expected_of(prepared.rendered, prepared.job, here, complete_checkpoints=len(complete))


def _rehearsal(request: Request, scratch: Path) -> Prepared:
    """The same job, for two steps, into a run directory of its own."""
    return prepare(
        replace(
            request,
            output=scratch / "rehearsal",
            steps=STEPS,
            resume=False,
            measure=True,
            profile_steps=None,
            dry_run=False,
            preflight=False,
            restarts=None,
        )
    )


@contextmanager
def _timed(survey: Survey, part: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        survey.seconds[part] = time.monotonic() - began
