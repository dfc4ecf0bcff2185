"""Every number in the memory formulas counts: changed, some prediction leaves its tolerance.

The formulas' numbers are found through the syntax tree, changed one at a time (`mutated`), and the module is
loaded with its dependents beside the real ones. What must notice is the comparison with bytes that real
engines measured (`matrix_predictions.misses`), or with what parts of the engine say
(`known_values.wrong_values`); never with our own output.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import vdsgen.cost
from tests.cost.known_values import wrong_values
from tests.cost.matrix_predictions import Cost, misses

FOLDER = Path(vdsgen.cost.__file__).parent
MUTATED = ("offload", "model_states", "gradients", "activations", "memory")
LOADED = ("engine_defaults", "offload", "model_states", "gradients", "activations", "timeline", "memory")
"""In the order of their imports."""


class Number(NamedTuple):
    """One number in a module's source."""

    module: str
    scope: str
    """The function or the constant that it is in."""
    position: int
    """Among the numbers of that scope."""
    text: str
    """The line that holds it."""
    value: float

    @property
    def place(self) -> str:
        return f"{self.module}.{self.scope}[{self.position}]"


def numbers(module: str) -> Iterator[tuple[Number, ast.Constant, ast.Module]]:
    """Each number in a module, the node that holds it, and the tree of which it is part."""
    source = (FOLDER / f"{module}.py").read_text()
    tree = ast.parse(source)
    lines = source.splitlines()
    counted: dict[str, int] = {}
    for scope, node in _constants(tree, ""):
        position = counted[scope] = counted.get(scope, -1) + 1
        assert isinstance(node.value, int | float)
        yield Number(module, scope, position, lines[node.lineno - 1].strip(), node.value), node, tree


def _constants(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.Constant]]:
    for child in ast.iter_child_nodes(node):
        inner = scope
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{scope}.{child.name}" if scope else child.name
        elif not scope and isinstance(child, ast.Assign) and isinstance(child.targets[0], ast.Name):
            inner = child.targets[0].id
        if isinstance(child, ast.Constant) and type(child.value) in (int, float):
            yield inner, child
        else:
            yield from _constants(child, inner)


@contextmanager
def forgotten() -> Iterator[None]:
    """The loaded modules are imported anew inside, and are what they were afterwards."""
    names = {name: f"vdsgen.cost.{name}" for name in LOADED}
    before = {name: importlib.import_module(full) for name, full in names.items()}
    try:
        for name, full in names.items():
            del sys.modules[full]
            delattr(vdsgen.cost, name)
        yield
    finally:
        for name, full in names.items():
            sys.modules[full] = before[name]
            setattr(vdsgen.cost, name, before[name])


def load(module: str, tree: ast.Module) -> Cost:
    """The cost functions with one module as in `tree`."""
    with forgotten():
        found = {}
        for name in LOADED:
            full = f"vdsgen.cost.{name}"
            if name == module:
                made = ModuleType(full)
                made.__file__ = str(FOLDER / f"{name}.py")
                sys.modules[full] = made
                setattr(vdsgen.cost, name, made)
                exec(compile(tree, made.__file__, "exec"), made.__dict__)
                found[name] = made
            else:
                found[name] = importlib.import_module(full)
        return Cost(**{name: found[name] for name in Cost._fields})


def is_noticed(module: str, tree: ast.Module) -> bool:
    """Whether some prediction leaves its tolerance, or the module does not work any more."""
    try:
        cost = load(module, tree)
        return next(chain(misses(cost), wrong_values(cost)), None) is not None
    except Exception:  # a number that makes nonsense of a formula may raise anything
        return True


def mutated(value: float) -> float:
    """One more; a tenth more of a fraction or of a size in bytes; and ten million instead of none, since one
    byte counts for nothing."""
    if value == 0:
        return 10_000_000
    if isinstance(value, int):
        return value + max(1, value // 10)
    return value * 1.1


def survivors(module: str) -> Iterator[Number]:
    """The numbers that may be another without anybody noticing."""
    for number, node, tree in numbers(module):
        node.value = mutated(number.value)
        if not is_noticed(module, tree):
            yield number
        node.value = number.value


ALIKE = "all layers before the last put out as much"
NEVER_THE_PEAK = "a moment that is never a step's peak"
TOO_SMALL = "a latent, or a pointer to one: 15 kB of 4 MB and more"
REPORTED = "what plans report of a component; the peak does not rest on it"
EQUIVALENT = {
    "model_states._bf16_optimizer[3]": "the other branch of an engine's default that plans never take",
    "model_states._bf16_optimizer[8]": "counts where one parameter is larger than a rank's share of a stage",
    "gradients.gradient_growth[4]": NEVER_THE_PEAK,
    "gradients._at_first_full[2]": "the last layer is small beside a bucket",
    "gradients._at_first_full[3]": "the loop is left before it ends",
    "gradients._at_first_full[6]": "counts where the last layer alone overfills a bucket",
    "activations.StageTensors.always_bytes[0]": TOO_SMALL,
    "activations.StageTensors.stash_bytes[1]": TOO_SMALL,
    "activations.StageTensors.arriving_bytes[0]": NEVER_THE_PEAK,
    "activations.StageTensors.arriving_bytes[1]": ALIKE,
    "activations.stage_tensors[0]": ALIKE,
    "activations.stage_tensors[3]": ALIKE,
    "activations.stage_tensors[6]": "one process keeps nothing in slots",
    "activations.StageActivations.peak_bytes[0]": REPORTED,
    "activations.stage_activations[0]": REPORTED,
    "activations.stage_activations[1]": REPORTED,
    "activations.stage_activations[3]": TOO_SMALL,
    "activations.stage_activations[4]": NEVER_THE_PEAK,
    "activations._plain_backward[3]": NEVER_THE_PEAK,
    "activations._plain_backward[6]": ALIKE,
    "activations._plain_backward[7]": "not read again after the first layer",
    "activations._checkpointed_backward[2]": "set before it is read",
    "activations._checkpointed_backward[6]": ALIKE,
}
"""By place: why no measurement can tell. Reviewed one by one."""


@pytest.mark.parametrize("module", MUTATED)
def test_a_wrong_number_in_a_formula_is_noticed(module: str) -> None:
    found = {number.place: number for number in survivors(module)}
    known = {place for place in EQUIVALENT if place.startswith(f"{module}.")}
    assert found.keys() == known, "\n".join(
        f"{number.place}: {number.text}" for place, number in found.items() if place not in known
    )


def test_the_unchanged_formulas_are_found_right() -> None:
    """Loaded anew without a change, nothing is noticed: a mutant's miss is the mutation's."""
    for module in MUTATED:
        _, _, tree = next(numbers(module))
        assert not is_noticed(module, tree)
