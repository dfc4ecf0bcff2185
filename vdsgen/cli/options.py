"""What every command that plans is given: the experiment, the lab, and changes to them."""

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
