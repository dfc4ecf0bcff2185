"""Between a launch and its first rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.launch.hosts.test_rehearsal import TWO, survey
from vdsgen.errors import InputError
from vdsgen.launch.hosts import gate
from vdsgen.launch.hosts.check import REHEARSAL_SECONDS
from vdsgen.launch.hosts.report import Report, report_of
from vdsgen.launch.hosts.survey import Survey
from vdsgen.launch.start import Request


def found(monkeypatch: pytest.MonkeyPatch, told: Survey) -> list[dict[str, Any]]:
    """`check` gives this; what it is asked for is kept."""
    asked: list[dict[str, Any]] = []

    def check(_prepared: object, _request: object, *, show: Any, **how: Any) -> Report:
        asked.append(how)
        show("Rehearsing")
        return report_of(TWO, told, None, skipped={}, seconds=1.0)

    monkeypatch.setattr(gate, "check", check)
    return asked


def refuse(*, preflight: bool) -> None:
    request = Request(Path("plan"), Path("run"), preflight=preflight)
    gate.refuse_unready(None, request)  # type: ignore[arg-type]


def test_errors_refuse_a_launch_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = survey()
    told.findings.append(told.findings[-1].model_copy(update={"host": "a", "remedy": "end it"}))
    found(monkeypatch, told)
    with pytest.raises(InputError) as caught:
        refuse(preflight=False)
    assert [(one.message, one.remedy) for one in caught.value.problems] == [
        ("b: GPU 0 is used", None),
        ("a: GPU 0 is used", "end it"),
    ]
    assert caught.value.exit_code == 2


def test_warnings_are_told_and_do_not_refuse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = survey()
    told.findings.pop()
    asked = found(monkeypatch, told)
    refuse(preflight=False)
    assert capsys.readouterr().out == "warning: a, b: few files\n  -> more\n"
    assert asked == [{"links": False, "rehearsal": False, "rehearsal_seconds": REHEARSAL_SECONDS}]


def test_a_whole_preflight_shows_its_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = survey()
    told.findings.pop()
    asked = found(monkeypatch, told)
    refuse(preflight=True)
    shown = capsys.readouterr().out
    assert shown.startswith("Rehearsing ...\n")
    assert shown.endswith("Ready: 1 warning. 1.0 s.\n")
    assert (asked[0]["links"], asked[0]["rehearsal"]) == (True, True)
