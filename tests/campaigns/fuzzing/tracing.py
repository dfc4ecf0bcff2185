"""Tracing a model that nobody has traced takes tens of seconds of a processor: few cases of a campaign have it
done, the others plan with the profile of the demonstration's model in its place."""

from __future__ import annotations

from functools import cache
from typing import Any

from vdsgen.catalog.profiles import profile_for
from vdsgen.catalog.resolve import resolve_model
from vdsgen.cli import profiles
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.profile import ModelProfile

REAL_ONE_IN = 200
"""Of the cases."""
_really = profiles.trace


@cache
def _known() -> ModelProfile:
    model = resolve_model("vdt-demo")
    assert isinstance(model, Vdt)
    found = profile_for(model)
    assert found is not None
    return found


def _stand_in(model: Vdt, **_: Any) -> ModelProfile:
    return _known()


def trace_really(yes: bool) -> None:
    """For the cases that follow in this process."""
    profiles.trace = _really if yes else _stand_in
