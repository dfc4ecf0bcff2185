"""Pydantic's errors as problems that people can act on: place, what is there, what is expected."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from vdsgen.errors import Problem
from vdsgen.spec.base import MOST_GIB, SpecError
from vdsgen.spec.branches import chosen_model, discriminator, is_label_of
from vdsgen.spec.describe import as_model, bare, choices, describe, field_types, item_type, listed, members
from vdsgen.spec.field_docs import field_docs
from vdsgen.spec.keys import unknown_key_remedy
from vdsgen.spec.shown import shown
from vdsgen.spec.source import KeyPath, Source, dotted, key_path
from vdsgen.spec.suggest import did_you_mean

MOST_PROBLEMS = 50
"""The rest is left for the next try."""


class _Spot(NamedTuple):
    """What an error is about: the key path without pydantic's branch labels, and the type expected there."""

    path: KeyPath
    kind: Any
    model: type[BaseModel] | None
    """The model whose field the last key is."""
    whole_union: bool = False
    """No branch fits what was written: one message speaks for all of them."""


def problems_of(error: ValidationError, model: type[BaseModel], source: Source) -> list[Problem]:
    """One problem for each mistake, in the order of the file."""
    found: dict[tuple[KeyPath, str], Problem] = {}
    missing: list[tuple[_Spot, Problem]] = []
    meant: set[KeyPath] = set()
    for detail in error.errors(include_url=False):
        if len(found) + len(missing) >= MOST_PROBLEMS:
            break
        spot = _spot(detail["loc"], model, source)
        if spot is None:
            continue
        if detail["type"] == "missing" and not spot.whole_union:
            missing.append((spot, _missing(spot, source)))
        elif detail["type"] == "extra_forbidden" and not spot.whole_union:
            remedy, near = unknown_key_remedy(spot.path, spot.model, model)
            if near is not None:
                meant.add((*spot.path[:-1], near))
            found.setdefault(
                (spot.path, "key"), source.problem(spot.path, "unknown key", remedy=remedy, at_key=True)
            )
        else:
            problem = _wrong_value(spot, detail, source)
            if problem is not None:
                found.setdefault((spot.path, "value"), problem)
    problems = list(found.values()) + [problem for spot, problem in missing if spot.path not in meant]
    return sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))


def _spot(location: tuple[str | int, ...], model: type[BaseModel], source: Source) -> _Spot | None:
    """Walks an error's location along the types; None where it belongs to a branch that was not meant."""
    path: KeyPath = ()
    kind: Any = model
    parent: type[BaseModel] | None = None
    for part in location:
        node = source.find(path)
        if len(members(kind)) > 1 or discriminator(kind):
            chosen = chosen_model(kind, node)
            if chosen is None:
                return _Spot(path, kind, parent, whole_union=True)
            if discriminator(kind) is None and not is_label_of(part, chosen):
                return None
            kind = chosen
            continue
        kind = members(kind)[0] if members(kind) else kind
        here = as_model(kind)
        path = (*path, part)
        if here is not None:
            kind, parent = field_types(here).get(str(part)), here
        else:
            kind = item_type(kind)
    return _Spot(path, kind, parent)


def _missing(spot: _Spot, source: Source) -> Problem:
    under = dotted(spot.path[:-1])
    key = str(spot.path[-1])
    doc = field_docs(spot.model).get(key) if spot.model is not None else None
    purpose = f": {doc.split(chr(10) + chr(10))[0]}" if doc else ""
    remedy = f"add `{key}:` under {under}{purpose}" if under else f"add `{key}:`{purpose}"
    return source.problem(
        spot.path, f"is missing; expected {describe(spot.kind)}", remedy=remedy, at_key=True
    )


def _wrong_value(spot: _Spot, detail: Any, source: Source) -> Problem | None:
    if detail["type"] == "value_error":
        return _broken_rule(spot, detail, source)
    if detail["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return _wrong_tag(spot, source)
    node = source.find(spot.path)
    given = node.plain() if node is not None else None
    if detail["type"] in ("too_short", "too_long"):
        return _wrong_length(spot, given, detail["ctx"], source)
    if detail["type"] == "less_than_equal" and detail["ctx"]["le"] >= MOST_GIB:
        return source.problem(
            spot.path, f"{shown(given)} is too large; expected at most {detail['ctx']['le']:.0e}"
        )
    if spot.kind is None:  # nothing here knows this error: pydantic's own words
        return source.problem(spot.path, str(detail["msg"]))
    message = f"expected {describe(spot.kind)}, given {shown(given)}"
    return source.problem(spot.path, message, remedy=_value_remedy(spot, given))


def _broken_rule(spot: _Spot, detail: Any, source: Source) -> Problem:
    """A validator's error, at the key that it names."""
    error = detail["ctx"]["error"]
    if isinstance(error, SpecError):
        path = (*spot.path, *key_path(error.key))
        return source.problem(path, str(error), remedy=error.remedy)
    return source.problem(spot.path, str(error))


def _wrong_tag(spot: _Spot, source: Source) -> Problem:
    key = discriminator(spot.kind)
    assert key is not None, "a tag error where no key tells the branches apart"
    names = [
        str(name)
        for member in members(spot.kind)
        if (branch := as_model(member))
        for name in choices(field_types(branch)[key])
    ]
    path = (*spot.path, key)
    node = source.find(path)
    expected = listed(names, "or")
    if node is None:
        under = dotted(spot.path)
        return source.problem(
            path, f"is missing; expected {expected}", remedy=f"add `{key}:` under {under}", at_key=True
        )
    near = did_you_mean(str(node.value), names)
    message = f"expected {expected}, given {shown(node.plain())}"
    return source.problem(path, message, remedy=f"did you mean {near}?" if near else None)


def _wrong_length(spot: _Spot, given: object, limits: dict[str, Any], source: Source) -> Problem | None:
    if not isinstance(given, list):
        return source.problem(spot.path, f"expected {describe(spot.kind)}, given {shown(given)}")
    least, most = limits.get("min_length"), limits.get("max_length")
    if least is not None and len(given) < least:
        return source.problem(spot.path, f"expected at least {least} item, given {len(given)}")
    if most is not None and len(given) > most:
        return source.problem(spot.path, f"expected at most {most} items, given {len(given)}")
    return None  # items are wrong, not their number: they have problems of their own


def _value_remedy(spot: _Spot, given: object) -> str | None:
    """What to write instead, where that can be guessed."""
    kinds = {bare(member) for member in members(spot.kind)}
    names = [value for value in choices(spot.kind) if isinstance(value, str)]
    if given is None:
        field = spot.model.model_fields.get(str(spot.path[-1])) if spot.model and spot.path else None
        return "remove the key to get its default" if field and not field.is_required() else None
    if spot.path[-1:] == ("gpus",) and isinstance(given, int):
        return f"write gpus_per_node: {given}"
    if isinstance(given, str):
        return _tagged_remedy(given, spot) or _text_remedy(given, kinds, names)
    if isinstance(given, float) and kinds == {int} and given.is_integer():
        return f"write {int(given)}"
    if kinds == {str} and isinstance(given, int | float):
        return "put it in quotes"
    return None


def _tagged_remedy(given: str, spot: _Spot) -> str | None:
    """`optimizer: adamw` where `optimizer: {type: adamw}` was meant."""
    for member in members(spot.kind):
        model = as_model(member)
        for name, kind in field_types(model).items() if model is not None else ():
            if given in choices(kind):
                return f"write {{{name}: {given}}}"
    return None


def _text_remedy(given: str, kinds: set[Any], names: list[str]) -> str | None:
    near = did_you_mean(given, names)
    if near is not None:
        return f"did you mean {near}?"
    if bool in kinds and given.lower() in ("yes", "no", "on", "off"):
        return f"write {'true' if given.lower() in ('yes', 'on') else 'false'}; {given} is text in YAML 1.2"
    if kinds & {int, float}:
        if re.fullmatch(r"[-+]?[0-9][0-9_, ]*(\.[0-9]+)?([eE][-+]?[0-9]+)?", given):
            return f"write {re.sub('[_, ]', '', given)}, without quotes or separators"
        if re.match(r"[-+]?[0-9]", given):
            return "write the number alone; the key's name says its unit"
    return None
