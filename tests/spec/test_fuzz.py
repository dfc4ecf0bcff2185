"""Whatever a file holds, the answer is a spec or an InputError with placed problems: never another error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.spec.inputs import EXPERIMENT, LAB, UNEQUAL_LAB
from vdsgen.errors import InputError
from vdsgen.spec.describe import field_types
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.keys import key_places
from vdsgen.spec.lab import Lab
from vdsgen.spec.load import load_experiment, load_lab

KEYS = sorted({place.rsplit(".", 1)[-1] for model in (Lab, Experiment) for place in key_places(model)})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["vdt", "autoencoder", "space_to_depth", "adamw", "auto", "rtx-3090", "{{x}}", "1e5"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


def paths(value: Any, under: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a value."""
    found = [under]
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in entries:
        found += paths(child, (*under, key))
    return found


def mutate(data: Any, value: Any, draw: Any) -> Any:
    """One place replaced by another value, or one key more."""
    path = draw(st.sampled_from(paths(data)))
    if not path:
        return value
    target = data
    for part in path[:-1]:
        target = target[part]
    if isinstance(target, dict) and draw(st.booleans()):
        target[draw(st.sampled_from(KEYS))] = value
    else:
        target[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("text", "load"), [(LAB, load_lab), (UNEQUAL_LAB, load_lab), (EXPERIMENT, load_experiment)]
)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_files_load_or_are_refused_with_places(
    tmp_path_factory: pytest.TempPathFactory, text: str, load: Any, data: st.DataObject
) -> None:
    values = yaml.safe_load(text)
    for _ in range(data.draw(st.integers(1, 3))):
        values = mutate(values, data.draw(VALUES), data.draw)
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(json.dumps(values, indent=1))
    try:
        load(path)
    except InputError as error:
        for problem in error.problems:
            assert problem.file == str(path)
            assert problem.line is not None or problem.message == "is empty"
            assert "Input should" not in str(problem)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(key_places(Experiment))) | st.text(max_size=20), st.text(max_size=20))
def test_any_override_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "experiment.yaml"
    path.write_text(EXPERIMENT)
    try:
        load_experiment(path, [f"{key}={value}"])
    except InputError as error:
        assert all(str(problem) for problem in error.problems)


def test_every_field_can_be_described(tmp_path: Path) -> None:
    from vdsgen.spec.describe import as_model, describe, item_type, members

    def check(model: Any) -> None:
        for name, kind in field_types(model).items():
            assert describe(kind) not in ("", "a value", "nothing"), f"{model.__name__}.{name}"
            for member in members(kind):
                child = as_model(item_type(member) or member)
                if child is not None:
                    check(child)

    check(Lab)
    check(Experiment)
