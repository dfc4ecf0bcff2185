"""DeepSpeed configs in the packages that are installed here, linted: the table in docs/lint.md.

    python -m tests.public_configs

Found are JSON files, dictionaries in Python sources (what is no literal counts as "auto", which Transformers
and Accelerate fill in), and JSON objects in texts. None of them is copied.
"""

from __future__ import annotations

import ast
import json
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vdsgen.errors import InputError
from vdsgen.review.lint.context import Context
from vdsgen.review.lint.run import lint

PACKAGES = ("accelerate", "deepspeed", "diffusers", "lightning", "peft", "pytorch_lightning", "transformers")
TELLING = {"zero_optimization", "train_micro_batch_size_per_gpu"}
"""Keys that only DeepSpeed configs have."""
LONGEST_OBJECT = 20_000


class Found(NamedTuple):
    """A config in a package."""

    place: str
    content: bytes


def installed(root: Path) -> Iterator[Found]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".json", ".py", ".md", ".txt", ".ipynb") and path.is_file():
                text = path.read_text("utf-8", errors="replace")
                if any(f'"{key}"' in text or f"'{key}'" in text for key in TELLING):
                    yield from in_file(path.relative_to(root).as_posix(), path.suffix, text)


def in_file(name: str, suffix: str, text: str) -> Iterator[Found]:
    if suffix == ".json":
        yield Found(name, text.encode())
        return
    if suffix == ".py":
        yield from in_source(name, text)
    for match in re.finditer(r"\{", text if suffix != ".py" else ""):
        found = object_at(text, match.start())
        if found is not None:
            yield Found(f"{name}:{text.count(chr(10), 0, match.start()) + 1}", found.encode())


def in_source(name: str, text: str) -> Iterator[Found]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Dict):
            value = plain(node)
            if isinstance(value, dict) and set(value) & TELLING:
                yield Found(f"{name}:{node.lineno}", json.dumps(value, indent=1).encode())


def plain(node: ast.AST | None) -> Any:
    """The value of a literal; "auto" for anything else."""
    if isinstance(node, ast.Dict):
        return {str(plain(key)): plain(value) for key, value in zip(node.keys, node.values, strict=True)}
    try:
        return ast.literal_eval(node) if isinstance(node, ast.expr) else "auto"
    except ValueError:
        return "auto"


def object_at(text: str, start: int) -> str | None:
    """The JSON object that starts here, if it is a DeepSpeed config."""
    try:
        value, end = json.JSONDecoder().raw_decode(text[start : start + LONGEST_OBJECT])
    except (json.JSONDecodeError, RecursionError):
        return None
    return text[start : start + end] if isinstance(value, dict) and set(value) & TELLING else None


def table() -> str:
    rows = ["| config | errors | warnings | what |", "|---|---|---|---|"]
    for found in installed(Path(sysconfig.get_paths()["purelib"])):
        try:
            linted = lint(found.content, found.place, Context(auto_filled=True))
        except InputError as error:
            rows.append(f"| `{found.place}` | - | - | not read: {error.problems[0].message[:60]} |")
            continue
        checks = Counter(finding.check for finding in linted.findings if finding.level != "note")
        said = ", ".join(
            f"`{check}`" + (f" x {count}" if count > 1 else "") for check, count in checks.items()
        )
        rows.append(f"| `{found.place}` | {linted.count('error')} | {linted.count('warning')} | {said} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
