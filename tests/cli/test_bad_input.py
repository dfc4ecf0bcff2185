"""Bad input of every kind: exit code 2, a message with its place on standard error, and never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.spec.inputs import EXPERIMENT, LAB
from vdsgen.cli.main import cli

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


def plan(folder: Path, lab: str | bytes = LAB, experiment: str | bytes = EXPERIMENT, *more: str) -> Result:
    for name, text in (("lab.yaml", lab), ("experiment.yaml", experiment)):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    arguments = ["plan", str(folder / "experiment.yaml"), "--lab", str(folder / "lab.yaml"), *more]
    return CliRunner().invoke(cli, arguments)


def check(result: Result, *words: str) -> None:
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr
    assert len(result.stderr) < 5000
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("lab", "words"),
    [
        ("", ["is empty"]),
        ("pools: []", [":1:1: pools:", "at least 1"]),
        ("pools: [\n", ["not valid YAML"]),
        (LAB + LAB, [":7:1:", "given twice"]),
        (ALIASES, ["holds over"]),
        ("[" * 100_000, ["nested more than 64 deep"]),
        (b"\x89PNG\r\n\x1a\n\x00", ["not UTF-8"]),
        (b"PK\x03\x04 zip", ["control character"]),
        (LAB.replace("gpus_per_node: 4", "gpus_per_node: 0"), [":4:20: pools[0].gpus_per_node:", "given 0"]),
        (LAB.replace("gpus_per_node: 4", "gpus_per_node: 4\n    nodes: 0"), ["pools[0].nodes:", "given 0"]),
        (LAB.replace("gpus_per_node: 4", f"gpus_per_node: {'9' * 30}"), ["too large"]),
        (LAB.replace("gpus_per_node: 4", f"gpus_per_node: {'9' * 9999}"), ["too long"]),
        (LAB.replace("128", ".nan"), [":6:22:", "not a finite number"]),
        (LAB.replace("128", "-1"), ["pools[0].host_memory_gib:", "given -1"]),
        (LAB.replace("rtx-3090", "rtx-9090"), [":3:10: pools[0].gpu:", "no GPU 'rtx-9090'", "->"]),
        (LAB.replace("rtx-3090", '"{{ 7*7 }}"'), [":3:10: pools[0].gpu:", "no GPU"]),
        (LAB.replace("box", '"{{ 7*7 }}"'), [":2:11: pools[0].name:", "expected a name"]),
        (LAB.replace("box", '"{% raw %}"'), ["pools[0].name:", "expected a name"]),
        (LAB.replace("box", '"a\\nb; rm -rf /"'), ["pools[0].name:", "expected a name"]),
        (LAB.replace("box", "../../etc"), ["pools[0].name:", "expected a name"]),
        (LAB.replace("box", '"\\e[31mred"'), ["pools[0].name:", "expected a name"]),
        (LAB.replace("box", "!!python/object/apply:os.system [true]"), [":2:11:", "is not read"]),
        (LAB + "    hosts: ['-oProxyCommand=x']\n", [":7:13: pools[0].hosts[0]:", "a host name"]),
    ],
)
def test_bad_labs(tmp_path: Path, lab: str | bytes, words: list[str]) -> None:
    check(plan(tmp_path, lab), "lab.yaml", *words)


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        ("x", ["expected a mapping"]),
        (EXPERIMENT.replace("width: 64", "widht: 64"), [":7:3: data.widht:", "did you mean width?"]),
        (EXPERIMENT.replace("  steps: 100\n", ""), [":8:1: training.steps:", "is missing"]),
        (EXPERIMENT.replace("height: 64", "height: 65"), [":6:11: data.height:", "multiple"]),
        (EXPERIMENT.replace("frames: 8", "frames: eight"), [":5:11: data.frames:", "'eight'"]),
        (EXPERIMENT.replace("vdt-demo", "svd/config.json"), [":2:8: model:", "no folder with a config.json"]),
        (EXPERIMENT.replace("vdt-demo", "vdt-1.5b"), [":2:8: model:", "channels", "data.text_encoder"]),
        (EXPERIMENT.replace("clips\nmodel", "'{{cycler.__init__}}'\nmodel"), [":1:7: name:", "a name"]),
        (EXPERIMENT.replace("videos: clips", 'videos: "a\\0b"'), ["data.videos:", "expected a path"]),
    ],
)
def test_bad_experiments(tmp_path: Path, experiment: str, words: list[str]) -> None:
    check(plan(tmp_path, LAB, experiment), "experiment.yaml", *words)


def test_problems_of_both_files_come_at_once(tmp_path: Path) -> None:
    result = plan(tmp_path, LAB.replace("rtx-3090", "gtx"), EXPERIMENT.replace("vdt-demo", "vdt"))
    check(result, "lab.yaml:3:10", "experiment.yaml:2:8")


def test_bad_overrides(tmp_path: Path) -> None:
    check(plan(tmp_path, LAB, EXPERIMENT, "--set", "training.steps=0"), "--set training.steps=0")


def test_missing_files(tmp_path: Path) -> None:
    arguments = ["plan", str(tmp_path / "e.yaml"), "--lab", str(tmp_path / "l.yaml")]
    check(CliRunner().invoke(cli, arguments), "e.yaml: no such file", "l.yaml: no such file")


def test_a_good_pair_of_files_plans(tmp_path: Path) -> None:
    result = plan(tmp_path)
    assert result.exit_code == 0, (result.output, result.exception)
