"""A small part of the campaign, always the same, and every input that once broke a promise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.campaigns.fuzzing.case import Case, as_json, from_json
from tests.campaigns.fuzzing.check import TooLongError
from tests.campaigns.fuzzing.inputs import KINDS, make_case
from tests.campaigns.fuzzing.scripts import dry_run_problems, make_stand_ins
from tests.campaigns.fuzzing.shrink import smallest
from tests.campaigns.fuzzing.values import CANARY
from tests.campaigns.fuzzing.workers import run_given

CORPUS = sorted((Path(__file__).parent / "fuzz_corpus").glob("*.json"))
INPUTS = 80
NEED_TORCH = frozenset({"export", "@states", "@cache", "@caption", "@metrics", "cache"})
"""Commands and readers that import it, which takes longer than all of the slice."""


def test_a_slice_of_the_campaign_breaks_no_promise() -> None:
    cases = [make_case(7, number) for number in range(1, 1 + INPUTS)]
    quick = [
        dataclasses.replace(case, commands=commands)
        for case in cases
        if (commands := tuple(argv for argv in case.commands if argv[0] not in NEED_TORCH))
    ]
    answers = list(run_given(quick))
    assert [problem for answer in answers for problem in answer["problems"]] == []
    assert len(answers) == len(quick) > INPUTS / 2
    assert len({answer["kind"] for answer in answers}) == len(KINDS) - 1
    codes = [code for answer in answers for code in answer["exit_codes"]]
    assert {0, 1, 2} <= set(codes)


@pytest.mark.slow
def test_inputs_that_once_broke_a_promise_do_not_any_more() -> None:
    cases = [from_json(path.read_text()) for path in CORPUS]
    answers = list(run_given(cases))
    assert {path.stem: answer["problems"] for path, answer in zip(CORPUS, answers, strict=True)} == {
        path.stem: [] for path in CORPUS
    }


def test_a_case_is_the_same_for_the_same_numbers_and_survives_its_file() -> None:
    for number in range(60):
        case = make_case(3, number)
        assert make_case(3, number) == case
        again = from_json(as_json(case))
        assert (again.files, again.commands, again.named) == (case.files, case.commands, case.named)


@pytest.mark.parametrize(
    ("argv", "files", "words"),
    [
        (("@boom", "x"), {}, "@boom: ZeroDivisionError reached the top"),
        (("@writes", "x"), {}, "@writes: open '"),
        (("@shell", "x"), {}, "subprocess.Popen: ['/bin/sh', '-c', 'true']"),
        (("@dies", "x"), {}, "the process died: signal 9"),
        (("lint", "x.json"), {"x.json": b"{"}, ""),
    ],
)
def test_what_breaks_a_promise_is_seen(
    monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], files: dict[str, bytes], words: str
) -> None:
    """Readers that do what none of ours must."""
    import os
    import signal
    import subprocess

    from tests.campaigns.fuzzing import readers

    bad = {
        "@boom": lambda _: 1 // 0,
        "@writes": lambda _: Path("../outside.txt").write_text("x"),
        "@shell": lambda _: subprocess.run("true", shell=True, check=False),
        "@dies": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    }
    monkeypatch.setattr(readers, "READERS", {**readers.READERS, **bad})
    (answer,) = run_given([Case("x", files, (argv,), named=("x.json",))])
    assert bool(answer["problems"]) == bool(words)
    said = " | ".join(answer["problems"])
    assert words in said, said


def test_a_name_that_a_shell_obeys_is_seen(tmp_path: Path) -> None:
    make_stand_ins(tmp_path / "programs")
    (tmp_path / "work").mkdir()
    obeyed = dry_run_problems(f"env a $(touch {CANARY})", "run", tmp_path / "programs", tmp_path / "work")
    assert any("a name was obeyed" in problem for problem in obeyed)


def test_a_case_is_made_small() -> None:
    lines = b"\n".join(b"%d" % number for number in range(100))
    case = Case("x", {"a": lines, "b": b"1\n2"}, (("lint", "a"),))
    found = smallest(case, lambda one: b"\n57\n" in b"\n" + one.files.get("a", b"") + b"\n")
    assert found.files == {"a": b"57"}


def test_nothing_may_catch_the_end_of_a_cases_time() -> None:
    assert not issubclass(TooLongError, Exception)
