"""`vdsgen catalog`: the GPUs, links, models and rules that are built in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from vdsgen.errors import InputError, Problem

Row = tuple[str, ...]


@click.command()
@click.argument("kind", type=click.Choice(["gpus", "links", "models", "rules"]))
@click.argument("name", required=False)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document, with every figure and source."
)
def command(kind: str, name: str | None, as_json: bool) -> None:
    """List the GPUS, LINKS, MODELS or RULES that are built in, or show one of them by NAME."""
    entries = {"gpus": _gpus, "links": _links, "models": _models, "rules": _rules}[kind]()
    if name is not None and name not in entries:
        raise InputError([_unknown(kind, name, entries)])
    if as_json:
        chosen: Any = entries if name is None else entries[name]
        click.echo(json.dumps(chosen, indent=2, ensure_ascii=False))
    elif name is not None:
        click.echo(_entry(name, entries[name]), nl=False)
    else:
        click.echo(_table(_ROWS[kind](entries)) + _LEGENDS.get(kind, ""), nl=False)
        if kind == "models":
            click.echo(_table(_pretrained_rows(entries)), nl=False)


def _unknown(kind: str, name: str, entries: Mapping[str, Any]) -> Problem:
    from vdsgen.catalog.names import similar_names
    from vdsgen.spec.shown import shown

    known = {entry: str(figures.get("product", entry)) for entry, figures in entries.items()}
    near = similar_names(name, known)
    hint = f"did you mean {' or '.join(near)}?" if near else f"`vdsgen catalog {kind}` lists all"
    return Problem(f"no {kind.removesuffix('s')} {shown(name)} in the catalogue", remedy=hint)


def _gpus() -> dict[str, dict[str, Any]]:
    from vdsgen.catalog.load import gpus

    return {name: gpu.model_dump(mode="json") for name, gpu in gpus().items()}


def _links() -> dict[str, dict[str, Any]]:
    from vdsgen.catalog.load import links

    return {name: link.model_dump(mode="json") for name, link in links().items()}


def _models() -> dict[str, dict[str, Any]]:
    """Sizes, and the parameter count of the layers that were traced."""
    from vdsgen.catalog.load import models, pretrained
    from vdsgen.catalog.profiles import catalog_profile, profile_for

    entries: dict[str, dict[str, Any]] = {}
    for name, model in models().items():
        profile = profile_for(model.sizes)
        entries[name] = {
            "summary": model.summary,
            "parameters": None if profile is None else profile.parameters,
            **model.sizes.model_dump(mode="json", exclude={"name"}),
        }
    for name, other in pretrained().items():
        profile = catalog_profile(name)
        entries[name] = {
            "summary": other.summary,
            "family": "diffusers",
            "parameters": profile.parameters,
            "layers": len(profile.layers),
            **other.model_dump(mode="json", exclude={"summary"}),
        }
    return entries


def _rules() -> dict[str, dict[str, Any]]:
    """By id; what may be repaired by itself has `fix` true."""
    from vdsgen.rules.registry import SUBJECTS

    shown = ("summary", "severity", "remedy", "source", "versions", "engine_message")
    return {
        rule.id: {
            "subject": subject,
            **{key: getattr(rule, key) for key in shown},
            "keys": list(rule.keys),
            "fix": rule.fix is not None,
        }
        for subject, rules in SUBJECTS.items()
        for rule in rules
    }


def _gpu_rows(entries: Mapping[str, Any]) -> Iterable[Row]:
    yield ("name", "GiB", "fp32", "fp16", "bf16", "fp8", "GB/s", "links")
    for name, gpu in entries.items():
        rates = (gpu[f"{kind}_tflops"] for kind in ("fp32", "fp16", "bf16", "fp8"))
        memory, bandwidth = gpu["memory_gib"], gpu["memory_bandwidth_gb_per_second"]
        yield (name, _number(memory), *map(_number, rates), _number(bandwidth), " ".join(gpu["links"]))


def _link_rows(entries: Mapping[str, Any]) -> Iterable[Row]:
    yield ("name", "GB/s one way", "microseconds", "GPUs joined")
    for name, link in entries.items():
        bandwidth, latency = link["bandwidth_gb_per_second"], link["latency_microseconds"]
        yield (name, _number(bandwidth), _number(latency), _number(link["joins"]))


def _model_rows(entries: Mapping[str, Any]) -> Iterable[Row]:
    yield ("name", "parameters", "hidden", "blocks", "heads", "mlp", "channels", "patch", "condition")
    for name, model in entries.items():
        if model["family"] == "diffusers":
            continue
        count = "not traced" if model["parameters"] is None else f"{model['parameters']:,}"
        keys = ("hidden_size", "depth", "heads", "mlp_hidden_size", "in_channels", "patch_size", "condition")
        yield (name, count, *(str(model[key]) for key in keys))


def _pretrained_rows(entries: Mapping[str, Any]) -> Iterable[Row]:
    yield ("name", "parameters", "layers", "class in diffusers", "summary")
    for name, model in entries.items():
        if model["family"] == "diffusers":
            count, layers = f"{model['parameters']:,}", str(model["layers"])
            yield (name, count, layers, model["class_name"], model["summary"])


def _rule_rows(entries: Mapping[str, Any]) -> Iterable[Row]:
    yield ("id", "level", "rule")
    for name, rule in entries.items():
        yield (name, rule["severity"], rule["summary"])


_ROWS = {"gpus": _gpu_rows, "links": _link_rows, "models": _model_rows, "rules": _rule_rows}


_LEGENDS = {
    "models": "\nModels of diffusers (`family: diffusers`, docs/models.md):\n\n",
    "gpus": "\nfp32 to fp8: dense matrix rates, TFLOPS. `vdsgen catalog gpus NAME` shows the sources.\n",
    "rules": (
        "\nrefused: the engine raises. ignored: it does nothing with the setting. overridden: it does "
        "something else.\nhurts: it runs, at a cost. ours: of this project. "
        "`vdsgen catalog rules NAME` shows keys and sources.\n"
    ),
    "links": "\nOne GPU, one direction, sustained. `vdsgen catalog links NAME` shows the sources.\n",
}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _table(rows: Iterable[Row]) -> str:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(_line(row, widths) for row in rows)


def _line(row: Row, widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"


def _entry(name: str, entry: Mapping[str, Any]) -> str:
    width = max(len(key) for key in entry)
    lines = [name]
    for key, value in entry.items():
        if isinstance(value, dict):
            lines += [f"  {key}.{inner}  {one}" for inner, one in value.items()]
            continue
        text = ", ".join(value) if isinstance(value, list) else "-" if value is None else str(value)
        lines.append(f"  {key.ljust(width)}  {text}")
    return "\n".join(lines) + "\n"
