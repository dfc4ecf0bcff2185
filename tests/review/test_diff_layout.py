"""How a diff reads: in a terminal of 100 columns, with and without colour, and in a pull request."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.review.configs import BASE, config, diff_of
from vdsgen.catalog.engine_keys import engine_data
from vdsgen.cli.main import cli
from vdsgen.review.diff import diff_sides
from vdsgen.review.diff_json import as_json
from vdsgen.review.diff_markdown import as_markdown
from vdsgen.review.diff_text import WIDTH, as_text
from vdsgen.review.directory import read_directory

RENDERED = Path(__file__).parents[2] / "examples" / "rendered"
HOSTILE = "\x1b[31mred|`<b>*\n"


def example() -> Any:
    names = ("article-1.2b@four-16gb", "article-1.2b-pinned@four-16gb")
    return diff_sides(*(read_directory(RENDERED / name) for name in names))


def test_the_verdict_comes_first() -> None:
    lines = as_text(example()).splitlines()
    assert [line.split("  ")[0] for line in lines[3:7]] == ["fits", "speed", "loss curve", "resume OLD's run"]
    markdown = as_markdown(example()).splitlines()
    assert markdown[2].startswith("fits: **yes** (")
    assert "resume OLD's run: **only through conversion** (`parallel.data_parallel_size`" in markdown[2]


def test_every_line_fits_a_terminal() -> None:
    for result in (example(), diff_of(config(), config(of_my_own="x" * 300, **{"y" * 60: "z" * 90}))):
        assert max(len(line) for line in as_text(result).splitlines()) <= WIDTH


def test_colour_adds_nothing_but_colour() -> None:
    assert click.unstyle(as_text(example(), colour=True)) == as_text(example())
    assert "\x1b[" in as_text(example(), colour=True)
    assert "\x1b[" not in as_text(example())


@pytest.mark.parametrize(
    ("arguments", "variables", "coloured"),
    [
        ((), {}, False),  # no terminal
        (("--color", "always"), {}, True),
        (("--color", "always"), {"NO_COLOR": "1"}, True),
        (("--color", "never"), {}, False),
    ],
)
def test_colour_is_asked_for(arguments: tuple[str, ...], variables: dict[str, str], coloured: bool) -> None:
    sides = (str(RENDERED / "article-1.2b@four-16gb"), str(RENDERED / "article-1.2b-pinned@four-16gb"))
    result = CliRunner().invoke(cli, ["diff", *sides, *arguments], env=variables)
    assert result.exit_code == 1
    assert ("\x1b[" in result.output) == coloured


def test_long_tables_are_folded() -> None:
    new = config(**{f"of_my_own_{number}": number for number in range(20)})
    assert "<details><summary>Unknown to vdsgen: 20 settings</summary>" in as_markdown(diff_of(config(), new))


def test_nothing_of_an_input_is_obeyed() -> None:
    result = diff_of(config(), config(**{HOSTILE: HOSTILE}, wandb={"enabled": True, "project": HOSTILE}))
    assert "\x1b" not in as_text(result) + as_markdown(result)
    assert re.search(r"^\|.*<b>(?![^`]*`)", as_markdown(result), re.MULTILINE) is None


def test_components_and_causes_add_up() -> None:
    impact = example().impact
    for stage in impact.stages:
        assert stage.pair("peak").new == stage.new.memory.peak_bytes
    for side in ("old", "new"):
        step = getattr(example(), "before" if side == "old" else "after").step_seconds
        assert sum(getattr(pair, side) for pair in impact.parts.values()) == pytest.approx(step)


def test_json_says_all_of_it() -> None:
    document = as_json(example())
    assert document["verdicts"]["loss_curve"] == "different"
    assert document["verdicts"]["resume"] == "conversion"
    assert set(document["risks"][0]) == {"id", "severity", "message", "remedy", "keys"}
    stage = document["impact"]["memory"]["stages"][0]
    assert stage["components"]["peak_bytes"]["change"] < 0
    assert document["impact"]["time"]["recompute_seconds"]["change"] > 0
    plain = as_json(diff_of(config(), config(gradient_clipping=0.5)))
    assert plain["impact"] is None
    assert plain["predicted"] == {"old": None, "new": None}
    assert plain["changes"][0]["file"] == "ds_config.json"


def test_whatever_is_in_the_files_something_is_said() -> None:
    """Values of any type under any of the engine's keys: no side is ever a traceback."""
    draw = random.Random(7)
    values: list[Any] = [
        None, True, 0, 2, -1, 5e8, "auto", "cpu", "5e8", HOSTILE, [], [1], {}, {"a": 1}, 10**30
    ]  # fmt: skip
    sections = engine_data()["sections"]

    def drawn() -> dict[str, Any]:
        found: dict[str, Any] = dict(BASE) if draw.random() < 0.5 else {}
        for _ in range(draw.randint(0, 10)):
            pointer = draw.choice(list(sections))
            node = found
            for part in pointer.split("/")[1:]:
                if not isinstance(node.get(part), dict):
                    node[part] = {}
                node[part] = dict(node[part])
                node = node[part]
            node[draw.choice([*sections[pointer]["keys"], "odd"])] = draw.choice(values)
        return found

    for _ in range(60):
        old, new = drawn(), drawn()
        result = diff_of(old, new)
        assert "\x1b" not in as_text(result) + as_markdown(result)
        json.dumps(as_json(result))
        assert diff_of(new, new).same
