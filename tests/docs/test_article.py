"""docs/article.md says what the committed plans say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.article_measured import COMMANDS, MEASURED, Measured
from tests.article_setups import LEAST_SECONDS, SETUPS, difference_sentences, sections, setup
from tests.docs.running import begin
from tests.update_article import PAGE, page
from vdsgen.cli.main import cli
from vdsgen.planner.compare import PARTS
from vdsgen.planner.explanations.differences import Planned, differences
from vdsgen.planner.space import layout_of


def test_article_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "stale: run `python -m tests.update_article`"


def test_every_row_is_answered_with_a_command() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for number in range(1, 22):
        assert text.count(f"\n| A{number} |") >= 2, f"A{number}: an answer, and a command"


@pytest.mark.parametrize("measured", MEASURED, ids=[f"{one.row} {one.page}" for one in MEASURED])
def test_figures_stand_on_the_page_that_measured_them(measured: Measured) -> None:
    text = " ".join((PAGE.parent / measured.page).read_text(encoding="utf-8").split())
    for figure in measured.figures:
        assert figure in measured.answer and figure in text, figure


@pytest.mark.parametrize(
    "command", sorted({one for all_of in COMMANDS.values() for one in all_of if one.startswith("vdsgen ")})
)
def test_commands_of_rows_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that need no ranks; of the others `--help` says what they need."""
    begin("docs/article.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(cli, words if len(words) > 1 else [*words, "--help"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module", params=SETUPS, ids=[experiment for experiment, _, _ in SETUPS])
def plans(request: pytest.FixtureRequest) -> tuple[Planned, Planned]:
    """The article's plan of one set-up, and ours."""
    experiment, lab, _ = request.param
    return setup(experiment, lab)


def test_every_difference_is_tried_both_ways(plans: tuple[Planned, Planned]) -> None:
    article, ours = plans
    told = {one.choice: one for one in differences(article, ours)}
    mine, theirs = ours.candidate.settings, article.candidate.settings
    assert ("layout" in told) == (layout_of(mine) != layout_of(theirs))
    assert ("precision" in told) == (mine.dtype != theirs.dtype)
    assert ("ZeRO stage" in told) == (mine.zero_stage != theirs.zero_stage)
    for choice, one in told.items():
        assert one.one != one.other
        if choice != "communication":
            assert one.other_with_ones is not None and one.one_with_others is not None
            # What is planned with everything else free cannot beat our plan but by what simplicity costs.
            if one.other_with_ones.outcome == "slower" and choice != "precision":
                assert one.other_with_ones.extra_seconds is not None
                assert one.other_with_ones.extra_seconds >= -0.01 * ours.candidate.time.step_seconds
    sentences = list(difference_sentences(article, ours))
    assert len(sentences) == len(told) + 1


def test_the_seconds_between_the_two_plans_add_up(plans: tuple[Planned, Planned]) -> None:
    article, ours = plans
    (*_, together) = difference_sentences(article, ours)
    parts = re.findall(rf"(?:{'|'.join(PARTS.values())}) ([+−])([\d.]+) (ms|s)", together)
    told = sum(
        (1 if sign == "+" else -1) * float(value) / (1000 if unit == "ms" else 1)
        for sign, value, unit in parts
    )
    meant = ours.candidate.time.step_seconds - article.candidate.time.step_seconds
    assert parts and told == pytest.approx(meant, abs=len(PARTS) * (LEAST_SECONDS + 0.005))


def test_each_setup_has_a_section_with_both_plans() -> None:
    text = sections()
    for _, _, heading in SETUPS:
        assert f"### {heading}" in text
    assert text.count("| samples/s |") == text.count("| memory of each stage |") == len(SETUPS)
