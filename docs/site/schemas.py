"""Pages of lab.yaml, experiment.yaml and plan.json: every key, from the JSON schemas that editors read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.site.markdown import cell, code, prose, table

Schema = Mapping[str, Any]

FILES = {
    "lab": (
        "lab.yaml",
        "What GPUs there are, what joins them, and what was measured of them. [Any lab](../labs.md) says what to write, "
        "with examples; [vdsgen scan](../scan.md) writes it for you.",
    ),
    "experiment": (
        "experiment.yaml",
        "The model, the clips, the training, and what of a plan is pinned. [A lab's first day](../first_day.md) writes a first "
        "one. `train.yaml` of a rendered directory is the same file with all defaults written out.",
    ),
    "plan": (
        "plan.json",
        "What was planned from what, with predicted memory and time: [Rendered directories](../rendering.md). `vdsgen plan "
        "--json` prints it.",
    ),
}

HEAD = """\
# {file}

{meaning}

Unknown keys are refused, with the nearest known one named. Units are in the names: GiB is 1024³ bytes, GB is 10⁹. The
schema itself, for editors, is `vdsgen/spec/schemas/{name}.schema.json`.

"""

WORDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "nothing",
}
MANY_CHOICES = 12
"""Of so many choices and more each has no place in a cell's line."""
WIDE_BOUND = 10**15
"""Bounds that keep numbers finite say nothing to a reader."""


def schema_pages(schemas: Path) -> dict[str, str]:
    """By path below the site's sources."""
    return {
        f"reference/{name}.md": _page(name, json.loads((schemas / f"{name}.schema.json").read_text("utf-8")))
        for name in FILES
    }


def _page(name: str, schema: Schema) -> str:
    file, meaning = FILES[name]
    definitions: dict[str, Schema] = schema.get("$defs", {})
    used = list(dict.fromkeys(_in_order(schema, definitions)))
    parts = [HEAD.format(file=file, meaning=meaning, name=name), "## At the top\n", _keys(schema)]
    for one in used:
        part = definitions[one]
        if "properties" in part:
            parts += [
                f"\n({_label(one)})=\n## {one}\n",
                prose(part.get("description", "")) + "\n",
                _keys(part),
            ]
    # Labels are of the whole site: each file's own.
    return "\n".join(parts).replace("(#def-", f"(#{name}-").replace("(def-", f"({name}-")


def _label(definition: str) -> str:
    return f"def-{definition.lower()}"


def _in_order(
    schema: Schema, definitions: Mapping[str, Schema], seen: set[str] | None = None
) -> Iterator[str]:
    """Definitions as a reader comes upon them: a section's own right after it."""
    seen = set() if seen is None else seen
    for name in _references(schema.get("properties", schema)):
        if name not in seen:
            seen.add(name)
            yield name
            yield from _in_order(definitions[name], definitions, seen)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        for key, inner in value.items():
            if key not in ("default", "discriminator"):
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _keys(schema: Schema) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (
            code(key),
            " or ".join(_kinds(value)),
            "required" if key in required else _default(value),
            cell(value.get("description", "")),
        )
        for key, value in schema["properties"].items()
    ]
    return table(["key", "type", "default", "meaning"], rows)


def _kinds(schema: Schema) -> list[str]:
    """What may stand there, as Markdown; null is left to the default."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return [f"[{name}](#{_label(name)})"]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            kinds = [kind for one in schema[key] if one.get("type") != "null" for kind in _kinds(one)]
            return list(dict.fromkeys(kinds)) or ["nothing"]
    if "const" in schema:
        return [code(_plain(schema["const"]))]
    if "enum" in schema:
        return [", ".join(code(_plain(value)) for value in schema["enum"])]
    return [_simple(schema)]


def _simple(schema: Schema) -> str:
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return "list of " + ", ".join(" or ".join(_kinds(one)) for one in schema["prefixItems"])
        return "list of " + " or ".join(_kinds(schema.get("items", {})))
    if kind == "object":
        inner = schema.get("additionalProperties")
        return "keys with " + " or ".join(_kinds(inner)) if isinstance(inner, Mapping) else "keys"
    if kind is None:
        return "anything"
    return WORDS[kind] + _bounds(schema)


def _bounds(schema: Schema) -> str:
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    low = "" if least is None and above is None else f"≥ {least}" if least is not None else f"> {above}"
    if most is not None and abs(most) >= WIDE_BOUND:
        most = None
    high = f"≤ {most:g}" if most is not None else f"< {below:g}" if below is not None else ""
    return ", ".join(["", *filter(None, (low, high))]) if low or high else ""


def _default(schema: Schema) -> str:
    """A section's own defaults stand in its table."""
    if "default" not in schema:
        return ""
    value = schema["default"]
    if value is None:
        return ""
    return "its own" if isinstance(value, Mapping) and value else code(_plain(value))


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
