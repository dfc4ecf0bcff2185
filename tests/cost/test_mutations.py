"""Every number in the memory formulas counts: changed, some prediction leaves its tolerance.

The formulas' numbers are found through the syntax tree, changed one at a time (`mutated`), and the module is
loaded with its dependents beside the real ones. What must notice is the comparison with bytes that real
engines measured (`matrix_predictions.misses`), or with what parts of the engine say or is counted by hand
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
MUTATED = (
    "host_memory",
    "reduction",
    "stage_sizes",
    "engine_optimizer",
    "state_bytes",
    "whole_states",
    "flat_states",
    "zero_3_states",
    "model_states",
    "gradients",
    "layer_bytes",
    "stage_tensors",
    "forward_peak",
    "backward_peak",
    "activations",
    "memory",
)
CONSTANTS_ALONE = ("memory",)
"""Of these the module's constants; its functions are the timeline's maximum, and tested against it."""
LOADED = (
    "engine_defaults",
    "host_memory",
    "reduction",
    "stage_sizes",
    "engine_optimizer",
    "state_bytes",
    "whole_states",
    "flat_states",
    "zero_3_states",
    "model_states",
    "gradients",
    "layer_bytes",
    "stage_tensors",
    "forward_peak",
    "backward_peak",
    "activations",
    "timeline",
    "memory",
)
"""In the order of their imports."""


class Number(NamedTuple):
    """One number in a module's source."""

    module: str
    scope: str
    """The function or the constant that it is in."""
    value: float
    line: str
    """That holds it."""

    @property
    def place(self) -> str:
        return f"{self.module}: {self.value} in {self.line}"


def numbers(module: str) -> Iterator[tuple[Number, ast.Constant, ast.Module]]:
    """Each number in a module, the node that holds it, and the tree of which it is part."""
    source = (FOLDER / f"{module}.py").read_text()
    tree = ast.parse(source)
    lines = source.splitlines()
    for scope, node in _constants(tree, ""):
        assert isinstance(node.value, int | float)
        if module not in CONSTANTS_ALONE or scope.isupper():
            yield Number(module, scope, node.value, lines[node.lineno - 1].strip()), node, tree


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


NEVER_THE_PEAK = "a moment that is never a step's peak"
REPORTED = "what plans report of a component; the peak does not rest on it"
NOT_READ_AGAIN = "not read again after the stage's first layer"
EQUIVALENT = {
    "flat_states: 2 in kept = 0 if defaults.BF16_IMMEDIATE_GRADIENT_UPDATE else 2 * t": (
        "the other branch of an engine's default, which plans never take"
    ),
    "flat_states: 4 in step = 0 if converts else max(4 * share, 4 * m)": (
        "one of the two counts where a parameter is larger than a rank's share of a stage"
    ),
    "gradients: 0 in gathered_bytes: int = 0": "the default beside no gathered weights",
    "gradients: 2 in once = full // 2 if doubled else full": NEVER_THE_PEAK,
    "gradients: 1 in for index in range(len(by_layer) - 1, -1, -1):": (
        "the last layer is small beside a bucket, and the loop is left before it ends"
    ),
    "gradients: 1 in filled = min(index + 1, len(by_layer) - 1)": (
        "one of the two counts where the last layer alone overfills a bucket"
    ),
    "stage_tensors: 1 in slots=pipeline_slots(stage, stages, settings.gradient_accumulation_steps) "
    "if stages > 1 else 1,": "one process keeps nothing in slots",
    "activations: 0 in growth = GradientGrowth(0, nothing, 0, nothing, 0, 0, 0)": REPORTED,
    "activations: 2 in after = tensors.kept_bytes or 2 * tensors.received_bytes": (NEVER_THE_PEAK),
    "backward_peak: 0 in freed += layer.saved + (own[index - 1].output if index else 0)": NOT_READ_AGAIN,
    "backward_peak: 0 in freed += layer.selective_saved + (tensors.packed_bytes(index) if index else 0)": (
        NOT_READ_AGAIN
    ),
    "backward_peak: 0 in need = need_first = 0": "set before it is read",
    "layer_bytes: 0 in return (*self._replace(unsaved_input=0), self.saved - self.unsaved_input)": (
        "alike on both sides of a comparison"
    ),
    "layer_bytes: 0 in saved=self.saved - gone, forward_transient=self.forward_transient + gone, "
    "unsaved_input=0": "nobody lets an input go twice",
    "stage_tensors: 0 in whole = segments[-1][1] if segments else 0": (
        "of a first layer that keeps its products `saved` is not read, and none is idle before it"
    ),
}
"""By number and line: why no measurement can tell. Reviewed one by one."""


@pytest.mark.parametrize("module", MUTATED)
def test_a_wrong_number_in_a_formula_is_noticed(module: str) -> None:
    found = {number.place: number for number in survivors(module)}
    known = {place for place in EQUIVALENT if place.startswith(f"{module}: ")}
    assert sorted(found.keys() - known) == [], "these may be other numbers, and nothing notices"
    assert sorted(known - found.keys()) == [], "these are noticed by now: no reason is needed"


def test_the_unchanged_formulas_are_found_right() -> None:
    """Loaded anew without a change, nothing is noticed: a mutant's miss is the mutation's."""
    for module in MUTATED:
        assert not is_noticed(module, ast.parse((FOLDER / f"{module}.py").read_text()))
