from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from vdsgen.catalog.load import gpus, links, models, pretrained
from vdsgen.catalog.profiles import profile_for
from vdsgen.cli.main import cli
from vdsgen.rules.registry import all_rules

NAMES = {
    "gpus": set(gpus()),
    "links": set(links()),
    "models": {*models(), *pretrained()},
    "rules": {rule.id for rule in all_rules()},
}


def catalog(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["catalog", *arguments])


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_each_kind_lists_every_name(kind: str) -> None:
    result = catalog(kind)
    assert result.exit_code == 0
    assert NAMES[kind] <= {line.split()[0] for line in result.stdout.splitlines() if line}


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_json_is_one_document_with_every_entry(kind: str) -> None:
    result = catalog(kind, "--json")
    document = json.loads(result.stdout)
    assert set(document) == NAMES[kind]
    name = min(NAMES[kind])
    assert json.loads(catalog(kind, name, "--json").stdout) == document[name]


@pytest.mark.parametrize("kind", ["gpus", "links", "rules"])
def test_an_entry_shows_its_source(kind: str) -> None:
    name = min(NAMES[kind])
    result = catalog(kind, name)
    assert result.stdout.startswith(f"{name}\n")
    assert "source" in result.stdout


def test_models_show_their_parameters() -> None:
    profile = profile_for(models()["vdt-1.5b"].sizes)
    assert profile is not None
    assert f"{profile.parameters:,}" in catalog("models").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gpus", "RTX 4090"], "did you mean rtx-4090?"),
        (["links", "nothing"], "vdsgen catalog links"),
        (["models", "vdt-15b"], "did you mean vdt-1.5b?"),
        (["rules", "pipeline_zero"], "did you mean pipeline-zero?"),
    ],
)
def test_unknown_names_get_a_suggestion(arguments: list[str], words: str) -> None:
    result = catalog(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_unknown_kinds_are_usage_errors() -> None:
    assert catalog("gpu").exit_code == 2
