"""Every command in every page is executed by a test: here, or by the one that `elsewhere.py` names.

What is cheap runs here, a page after the other, in the page's order and in a copy of the examples, and must
print what the page shows. `python -m tests.update_docs` writes today's output into the pages.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, commands_of, pages
from tests.docs.elsewhere import COMMANDS
from tests.docs.grammar import named_problem, problem, spans
from tests.docs.running import (
    Outcome,
    begin,
    differing_line,
    elsewhere,
    expected_codes,
    measures,
    renewed,
    run,
    runs_here,
)

MOST_SECONDS = 10.0
"""Of the processor, for one command that runs here."""
ALL = {path.relative_to(ROOT).as_posix(): commands_of(path) for path in pages()}


@pytest.mark.parametrize("page", [page for page, commands in ALL.items() if any(map(runs_here, commands))])
def test_commands_print_what_their_page_shows(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    outcome: Outcome | None = None
    for command in filter(runs_here, ALL[page]):
        began = time.process_time()
        outcome = run(command, outcome)
        assert time.process_time() - began < MOST_SECONDS, f"{command.place} takes too long: see elsewhere.py"
        where = f"{command.place}: {command.text}"
        assert outcome.code in expected_codes(command), f"{where}\nexit code {outcome.code}\n{outcome.output}"
        if command.output is not None:
            differs = differing_line(command.output, outcome.output)
            today = f"`python -m tests.update_docs` writes\n{outcome.output}"
            assert differs is None, f"{where}\nnot in its output: {differs}\n{today}"


@pytest.mark.parametrize("page", ALL)
def test_each_is_as_it_stands(page: str) -> None:
    """Commands and options exist, those in sentences too."""
    found = {command.place: problem(command) for command in ALL[page]}
    found |= {place: named_problem(text) for place, text in spans(ROOT / page)}
    assert {place: wrong for place, wrong in found.items() if wrong} == {}


def test_what_is_not_run_here_is_run_by_a_test_that_is_there() -> None:
    for page, commands in ALL.items():
        for command in commands:
            for entry in COMMANDS:
                if not command.is_synopsis and entry.matches(command):
                    assert entry.missing_tests() == [], f"{command.place}: {command.text}"
                    assert entry.missing_words(command) == [], f"{page}: {command.text}: not in {entry.tests}"


def test_no_entry_is_left_over() -> None:
    commands = [command for commands in ALL.values() for command in commands]
    assert [entry.pattern for entry in COMMANDS if not any(map(entry.matches, commands))] == []


def test_all_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [command for commands in ALL.values() for command in commands]
    kinds = {
        "executed here": [command for command in commands if runs_here(command)],
        "by named tests": [command for command in commands if not command.is_synopsis and elsewhere(command)],
        "synopses": [command for command in commands if command.is_synopsis],
        "programs that measure, and make": [
            command
            for command in commands
            if not command.is_synopsis and not elsewhere(command) and measures(command)
        ],
    }
    assert sum(map(len, kinds.values())) == len(commands) > 60
    told = ", ".join(f"{len(found)} {kind}" for kind, found in kinds.items())
    with capsys.disabled():
        print(f"\n{len(commands)} commands in {len(ALL)} pages: {told}")


def test_output_is_compared_line_by_line() -> None:
    output = "a 1\nb\nc\nd\n"
    assert differing_line("a 1\nb\nc\nd\n", output) is None
    assert differing_line("a 1\n[...]\nd\n", output) is None
    assert differing_line("[...]\nb\n[...]\n", output) is None
    assert differing_line("a 2\n[...]\n", output) == "a 2"
    assert differing_line("[...]\nc\nb\n", output) == "b"
    assert differing_line("a 1\nb\n", output) == "(the output goes on with 'c')"


def test_pages_are_renewed_as_they_are_abridged() -> None:
    output = "a 2\nb\nc 5 s\nd\ne\n"
    assert renewed("a 1\n[...]\nc 4 s\n[...]\n", output) == "a 2\n[...]\nc 5 s\n[...]\n"
    assert renewed("[...]\nc 4 s\nd\n", output) == "[...]\nc 5 s\nd\ne\n"
    assert renewed("x\n", output) == output
    with pytest.raises(ValueError, match="'z'"):
        renewed("a 1\n[...]\nz\n", output)
