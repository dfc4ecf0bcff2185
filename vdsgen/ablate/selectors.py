"""`--plans`: which plans to run, as people write it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args, get_origin

from pydantic import Field, ValidationError

from vdsgen.errors import InputError, Problem
from vdsgen.spec.base import Name, Spec
from vdsgen.spec.constraints import Constraints
from vdsgen.spec.load import validated
from vdsgen.spec.suggest import did_you_mean
from vdsgen.spec.yaml_source import read_yaml

OPTION = "--plans"
MOST_PLANS = 256
"""Of one grid or file: every plan takes a run of its own."""
FORMS = (
    "top:N, grid:KEY=VALUE,VALUE;KEY=VALUE, a YAML file of constraints, or a directory that "
    "`vdsgen generate` wrote"
)
AUTO = "auto"
"""Leaves a setting to the planner, also one that the experiment pins."""

Pin = int | bool | str
"""What a key of `constraints` can be pinned to: a number, yes or no, or a word."""
Pins = Mapping[str, Pin | None]
"""Key of `constraints` -> pinned value, None: not pinned."""
YES_OR_NO = {"true": True, "false": False}


class Top(NamedTuple):
    """The planner's best plans."""

    plans: int


class PinSet(NamedTuple):
    """The best plan under pins that are put over the experiment's own."""

    pins: Pins
    asked_for: str
    name: str | None = None


class RenderedPlan(NamedTuple):
    """A directory as `vdsgen generate` wrote it, or as somebody edited it."""

    path: Path


Selector = Top | PinSet | RenderedPlan


class NamedPins(Spec):
    """One entry of a file of plans."""

    name: Name | None = None
    """Name of the plan in tables and folders; default: from its settings."""
    constraints: Constraints = Constraints()
    """Pins put over those of the experiment."""


class PlansFile(Spec):
    """A YAML file for --plans."""

    plans: tuple[NamedPins, ...] = Field(min_length=1, max_length=MOST_PLANS)


def parse_selectors(texts: Sequence[str]) -> list[Selector]:
    """In the order that they were given. Raises InputError with what is wrong in each of them."""
    found: list[Selector] = []
    problems: list[Problem] = []
    for text in texts:
        try:
            found += parse_selector(text)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


def parse_selector(text: str) -> list[Selector]:
    """One value of --plans; a grid and a file give one selector a plan. Raises InputError."""
    kind, colon, rest = text.partition(":")
    if colon and kind == "top":
        return [Top(_count(rest))]
    if colon and kind == "grid":
        return list(_grid(rest))
    path = Path(text)
    with suppress(OSError):  # what can be no name of a file
        if path.is_dir():
            return [RenderedPlan(path)]
        if path.is_file():
            return list(_from_file(path))
    raise _bad(f"{text!r} is no selector, and no file or folder", f"give {FORMS}")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= MOST_PLANS or len(text) > 9:
        raise _bad(f"top:{text}: needs a number from 1 to {MOST_PLANS}", "write for example top:8")
    return int(text)


def _grid(text: str) -> Iterable[PinSet]:
    axes: dict[str, list[Pin | None]] = {}
    for axis in text.split(";"):
        key, equals, values = axis.partition("=")
        key = key.strip().removeprefix("constraints.")
        if not equals or not values.strip():
            raise _bad(f"grid: {axis.strip()!r} is not KEY=VALUE,VALUE", _GRID_EXAMPLE)
        if key in axes:
            raise _bad(f"grid: {key} is given twice", "list all its values after one =")
        axes[key] = list(dict.fromkeys(_value(key, value.strip()) for value in values.split(",")))
    size = prod(len(values) for values in axes.values())
    if size > MOST_PLANS:
        sizes = " x ".join(str(len(values)) for values in axes.values())
        raise _bad(f"grid: {sizes} = {size} plans", f"ask for {MOST_PLANS} at most; each takes a run")
    for point in product(*axes.values()):
        pins = dict(zip(axes, point, strict=True))
        yield PinSet(pins, f"grid: {pin_words(pins)}")


_GRID_EXAMPLE = "write for example 'grid:pipeline_parallel_size=1,2;activation_checkpoint_interval=0,1'"


def _value(key: str, text: str) -> Pin | None:
    if key not in Constraints.model_fields:
        near = did_you_mean(key, Constraints.model_fields)
        remedy = f"did you mean {near}?" if near else f"there are {', '.join(Constraints.model_fields)}"
        raise _bad(f"grid: {key!r} is no key of constraints", remedy)
    if text == AUTO:
        return None
    takes, named = _values_of(key)
    pin: Pin
    if takes is int:
        if not (text.isascii() and text.isdecimal()) or len(text) > 9:
            raise _bad(f"grid: {key}: {text!r} is no whole number", f"give numbers, or {AUTO} for no pin")
        pin = int(text)
    else:
        words = list(YES_OR_NO) if takes is bool else list(named)
        if text not in words:
            near = did_you_mean(text, words)
            remedy = f"did you mean {near}?" if near else f"give {', '.join(words)}, or {AUTO} for no pin"
            raise _bad(f"grid: {key}: {text!r} is none of its values", remedy)
        pin = YES_OR_NO[text] if takes is bool else text
    try:
        Constraints.model_validate({key: pin})
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise _bad(f"grid: {key}={text}: {reason[0].lower()}{reason[1:]}", "see `constraints`") from None
    return pin


def _values_of(key: str) -> tuple[type, tuple[str, ...]]:
    """What a key of `constraints` takes besides nothing: int, bool, or str with its words."""
    annotation = Constraints.model_fields[key].annotation
    taken = [one for one in (get_args(annotation) or (annotation,)) if one is not type(None)]
    if get_origin(taken[0]) is Annotated:
        taken[0] = get_args(taken[0])[0]
    if get_origin(taken[0]) is Literal:
        return str, get_args(taken[0])
    assert taken[0] in (int, bool), f"constraints.{key} is neither a number, nor yes or no, nor a word"
    return taken[0], ()


def _from_file(path: Path) -> Iterable[PinSet]:
    entries = validated(PlansFile, read_yaml(path)).spec.plans
    for number, entry in enumerate(entries, start=1):
        # A key that is written out as null takes the experiment's pin away, one left out keeps it.
        pins = {key: getattr(entry.constraints, key) for key in sorted(entry.constraints.model_fields_set)}
        yield PinSet(pins, f"{path}: plan {number}: {pin_words(pins)}", entry.name)


def pin_words(pins: Pins) -> str:
    """`zero_stage=1, offload_activations=true, micro_batch_size=auto`"""
    words = (f"{key}={pin_text(value)}" for key, value in pins.items())
    return ", ".join(words) or "no pins"


def pin_text(value: Pin | None) -> str:
    """As a grid takes it."""
    if value is None:
        return AUTO
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bad(message: str, remedy: str) -> InputError:
    return InputError([Problem(message, key=OPTION, remedy=remedy)])
