"""Pages of the formulas that memory and time come from, read from the source of `vdsgen/cost` without running it."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from docs.site.markdown import cell, code, docstring, fence, prose, table

SUBJECTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Memory over a step": (
        "memory",
        (
            "memory",
            "timeline",
            "instructions",
            "micro_batch",
            "activations",
            "forward_peak",
            "backward_peak",
            "stage_tensors",
            "layer_bytes",
            "engine_overhead",
        ),
    ),
    "Model states": (
        "states",
        (
            "model_states",
            "engine_optimizer",
            "whole_states",
            "flat_states",
            "zero_3_states",
            "state_bytes",
            "stage_sizes",
            "gradients",
            "reduction",
            "averages",
            "quantized_moments",
            "communication_memory",
            "checkpoint_bytes",
            "engine_defaults",
            "settings",
        ),
    ),
    "Host memory and offload": ("offload", ("offload", "host_memory")),
    "Computing": (
        "computing",
        (
            "compute",
            "efficiency",
            "rates",
            "measured",
            "eight_bit",
            "shared_processor",
            "hardware",
            "devices",
        ),
    ),
    "Communication": (
        "communication",
        ("communication", "unequal_nodes", "wire", "transfers", "tensor_parallel", "sequence_parallel"),
    ),
    "Time of a step": ("time", ("schedule", "step", "step_time", "step_tail", "stage_tails", "sizes")),
}
"""Subject -> (page, its modules in reading order)."""

UNITS = {
    "bytes": "bytes", "seconds": "s", "gib": "GiB", "tflops": "10¹² FLOP/s", "flops": "FLOP", "fraction": "share",
    "elements": "elements", "microseconds": "µs", "gb_per_second": "GB/s", "bytes_per_second": "bytes/s", "parameters": "elements",
    "efficiency": "share", "share": "share", "ranks": "ranks", "layers": "layers",
}  # fmt: skip
SOURCE = re.compile(
    r"arXiv:? \d{4}\.\d{4,5}(?:, (?:section|eq\.|equation) [\d.]+)?|doi:? 10\.\S*[^\s,;.)]"
    r"|(?:[a-z_0-9]+/)*[a-z_0-9]+\.py(?::\d+(?:-\d+)?)?"
)
LONGEST_VALUE = 40
"""Characters of a constant's value in a table."""
HEAD = """\
# {subject}

What `vdsgen` computes, from the source: every function with what it answers, its symbols with their units, and where
the formula comes from. Files and lines are of DeepSpeed 0.19.8 where nothing else is said.

"""
INDEX = """\
# Formulas

Memory and time are computed by the functions of `vdsgen/cost`, one physical thing a file. These pages are made from
their source; [Memory](../memory.md) and [How plans are made](../planner.md) tell the story in order, with measurements.

"""


class Part(NamedTuple):
    """A function or class of a module."""

    node: ast.FunctionDef | ast.ClassDef
    owner: str | None
    """The class of a method."""

    @property
    def name(self) -> str:
        return self.node.name if self.owner is None else f"{self.owner}.{self.node.name}"


def formula_pages(cost: Path) -> dict[str, str]:
    """By path below the site's sources. Modules that no subject names are on a page of their own."""
    subjects = dict(SUBJECTS)
    listed = {module for _, modules in SUBJECTS.values() for module in modules}
    others = sorted({path.stem for path in cost.glob("*.py")} - {"__init__"} - listed)
    if others:
        subjects["Other parts"] = ("others", tuple(others))
    pages, rows = {}, []
    for subject, (page, modules) in subjects.items():
        sources = {module: (cost / f"{module}.py").read_text("utf-8") for module in modules}
        parts = [HEAD.format(subject=subject), *(_module(module, text) for module, text in sources.items())]
        pages[f"reference/formulas/{page}.md"] = "\n".join(parts)
        first = [_first_sentence(ast.get_docstring(ast.parse(text)) or "") for text in sources.values()]
        rows += [
            (f"[{subject}](formulas/{page}.md)", code(f"{module}.py"), prose(says))
            for module, says in zip(modules, first, strict=True)
        ]
    pages["reference/formulas.md"] = INDEX + table(["page", "file of `vdsgen/cost`", "answers"], rows)
    return pages


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".:")


def _module(name: str, text: str) -> str:
    tree = ast.parse(text)
    says = ast.get_docstring(tree) or ""
    parts = [f"## {name}.py\n", docstring(says)]
    constants = list(_constants(tree))
    if constants:
        parts.append(table(["constant", "value", "unit", "meaning"], constants))
    parts += [_part(part, name, text) for part in _parts(tree)]
    return "\n".join(parts)


def _constants(tree: ast.Module) -> Iterator[tuple[str, str, str, str]]:
    """Names in capitals with what the text below them says."""
    for node, after in pairwise([*tree.body, None]):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name) and target.id.isupper():
            value = ast.unparse(node.value)
            shown = code(value) if len(value) <= LONGEST_VALUE else "(see the source)"
            yield code(target.id), shown, _unit(target.id.lower()) if "_" in target.id else "", _said(after)


def _said(node: ast.stmt | None) -> str:
    """The text below a constant or a field, for a cell."""
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        return cell(node.value.value)
    return ""


def _parts(tree: ast.Module) -> Iterator[Part]:
    """Public functions and classes with their public methods, and private ones that say something."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (_is_public(node) or ast.get_docstring(node)):
            yield Part(node, None)
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and ast.get_docstring(method) and _is_public(method):
                    yield Part(method, node.name)


def _is_public(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return not node.name.startswith("_")


def _part(part: Part, module: str, text: str) -> str:
    node, says = part.node, ast.get_docstring(part.node) or ""
    symbols = list(_symbols(node))
    sources = sorted(set(SOURCE.findall(says)))
    segment = _lines(node, text)
    lines = f"vdsgen/cost/{module}.py, lines {node.lineno} to {node.end_lineno}"
    parts = [f"### {part.name}\n"]
    if says:
        parts.append(docstring(says))
    if symbols:
        parts.append(_symbol_table(symbols))
    if sources:
        parts.append(
            "Sources: "
            + ", ".join(prose(one) if one.startswith(("arXiv", "doi")) else code(one) for one in sources)
            + "\n"
        )
    parts.append(f"<details><summary>{lines}</summary>\n\n{fence(segment, 'python')}\n</details>\n")
    return "\n".join(parts)


def _lines(node: ast.FunctionDef | ast.ClassDef, text: str) -> str:
    """A function's own text, its decorators too, as deep as it stands."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("\n".join(text.split("\n")[first - 1 : node.end_lineno]))


class Symbol(NamedTuple):
    name: str
    type: str
    unit: str
    meaning: str = ""


def _symbols(node: ast.FunctionDef | ast.ClassDef) -> Iterator[Symbol]:
    """Parameters and result of a function; fields of a class, with the text below each."""
    if isinstance(node, ast.ClassDef):
        for inner, after in pairwise([*node.body, None]):
            if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                yield _symbol(inner.target.id, inner.annotation)._replace(meaning=_said(after))
        return
    for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        if argument.arg not in ("self", "cls"):
            yield _symbol(argument.arg, argument.annotation)
    if node.returns is not None:
        yield _symbol(node.name, node.returns)._replace(name="answer")


def _symbol(name: str, annotation: ast.expr | None) -> Symbol:
    return Symbol(code(name), "" if annotation is None else code(ast.unparse(annotation)), _unit(name))


def _symbol_table(symbols: Sequence[Symbol]) -> str:
    """Without columns in which nothing stands."""
    shown = [column for column in range(4) if any(symbol[column] for symbol in symbols)]
    rows = [[symbol[column] for column in shown] for symbol in symbols]
    return table([("symbol", "type", "unit", "meaning")[column] for column in shown], rows)


def _unit(name: str) -> str:
    """From the end of a name, as this project names numbers."""
    found = (unit for ending, unit in sorted(UNITS.items(), key=lambda item: -len(item[0]))
             if name == ending or name.endswith(f"_{ending}"))  # fmt: skip
    return next(found, "")
