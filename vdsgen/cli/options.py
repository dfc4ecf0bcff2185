"""Options that several commands have: what is planned for, and how a review is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PLANNING = (
    click.argument("experiment", metavar="EXPERIMENT", type=click.Path(path_type=Path)),
    click.option("--lab", required=True, metavar="LAB", type=click.Path(path_type=Path), help="Lab file."),
    click.option(
        "--pool", "pools", multiple=True, metavar="NAME", help="Plan for this pool only; repeatable."
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change a key of the experiment; repeatable.",
    ),
)


def planning_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds EXPERIMENT, --lab, --pool and --set: parameters experiment, lab, pools and overrides."""
    for option in reversed(PLANNING):
        function = option(function)
    return function


REVIEWS = (
    click.option(
        "--format",
        "form",
        type=click.Choice(["text", "markdown", "json"]),
        default="text",
        show_default=True,
        help="text for a terminal, markdown for a pull request, json for programs.",
    ),
    click.option("--json", "as_json", is_flag=True, help="The same as --format json."),
)


def review_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --format and --json: parameters form and as_json."""
    for option in reversed(REVIEWS):
        function = option(function)
    return function
