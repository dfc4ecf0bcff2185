"""Lab and experiment files: changed values, and YAML that readers fall over."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.campaigns.fuzzing.case import Argv, Case
from tests.campaigns.fuzzing.trees import changed, damaged
from tests.campaigns.fuzzing.values import SHELL, number, text
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.keys import key_places
from vdsgen.spec.lab import Lab
from vdsgen.spec.yaml_source import parse_yaml

EXAMPLES = Path(__file__).parents[4] / "examples"
PAIRS = (
    *(("cpu-demo", "cpu-demo"),) * 4,
    *(("article-1.5b-pinned", "four-24gb"),) * 4,
    *(("article-1.2b", "four-16gb"),) * 2,
    *(("cpu-overfit", "cpu-demo"),) * 3,
    *(("one-gpu-1.5b", "one-16gb"),) * 2,
    *(("vdt-14b", "sixteen-80gb"),) * 2,
    ("article-1.5b-pinned", "mixed"),
    ("article-1.2b", "two-hosts"),
    ("article-1.2b", "shared-node"),
    ("wan-14b-lora", "four-24gb"),
)
"""Experiments and labs that go together; those that plan fast are more frequent."""
MORE_FOR_POOLS: tuple[Any, ...] = (
    {"launcher": "slurm", "slurm": {"partition": "a100", "account": "video", "time": "1-12:00:00"}},
    {"launcher": "slurm", "slurm": {"qos": "high", "notice_seconds": 300, "memory_gib_per_node": 100}},
    {"launcher": "ssh", "hosts": ["ada"]},
    {"launcher": "kubernetes", "kubernetes": {"image": "registry.example/vdsgen:1", "namespace": "lab",
     "claims": [{"claim": "lab", "mount": "/lab"}], "directory": "/lab/plan", "output": "/lab/run"}},
    {"calibration": "calibration.yaml"}, {"calibration": "../outside.txt"}, {"calibration": "pipe"},
    {"calibration": "/dev/zero"}, {"calibration": "loop"}, {"nvme": {"capacity_gib": 1000,
     "read_gb_per_second": 3, "write_gb_per_second": 2}}, {"hosts": ["ada"]}, {"price_per_gpu_hour": 2},
)  # fmt: skip
MORE_FOR_TRAINING: tuple[Any, ...] = (
    {"monitoring": {"wandb": {"project": "clips", "group": "a", "team": "b"}, "csv": True}},
    {"monitoring": {"wandb": {"project": "clips", "api_key": "0123456789abcdef"}}},
    {"monitoring": {"comet": {"project": "clips", "workspace": "lab"}, "tensorboard": True}},
    {"ema": {"decay": 0.999}}, {"start_from": "../outside.txt"}, {"validation": {"every_steps": 50}},
    {"optimizer": {"type": "adamw", "learning_rate": 1e-4, "state_dtype": "int8"}},
)  # fmt: skip
LAB_KEYS, EXPERIMENT_KEYS = (
    tuple(sorted({place.rsplit(".", 1)[-1].removesuffix("[]") for place in key_places(model)}))
    for model in (Lab, Experiment)
)


@cache
def _example(kind: str, name: str) -> Any:
    file = EXAMPLES / kind / f"{name}.yaml"
    return parse_yaml(file.read_text(), str(file)).plain()


def lab_case(rng: random.Random) -> Case:
    experiment, lab = rng.choice(PAIRS)
    tree = json.loads(json.dumps(_example("labs", lab)))
    for pool in tree["pools"]:
        if rng.random() < 0.4:
            pool |= json.loads(json.dumps(rng.choice(MORE_FOR_POOLS)))
        if rng.random() < 0.03:
            tree["pools"].append(pool | {"name": f"{pool['name']}-2"})
            break
    planned = json.loads(json.dumps(_example("experiments", experiment)))
    if rng.random() < 0.6:  # with nothing pinned more labs are taken
        planned.pop("constraints", None)
    files = {"experiment.yaml": _yaml(planned), "lab.yaml": _file(rng, tree, LAB_KEYS)}
    return _planned(rng, "lab file", files, tree, ("lab.yaml", "experiment.yaml", "calibration.yaml"))


def experiment_case(rng: random.Random) -> Case:
    experiment, lab = rng.choice(PAIRS)
    tree = json.loads(json.dumps(_example("experiments", experiment)))
    if rng.random() < 0.3:
        tree["training"] |= json.loads(json.dumps(rng.choice(MORE_FOR_TRAINING)))
    files = {"experiment.yaml": _file(rng, tree, EXPERIMENT_KEYS), "lab.yaml": _read("labs", lab)}
    return _planned(rng, "experiment file", files, tree, ("experiment.yaml", "lab.yaml", "--set"))


def _planned(
    rng: random.Random, kind: str, files: dict[str, bytes], tree: Any, named: tuple[str, ...]
) -> Case:
    common: list[str] = ["experiment.yaml", "--lab", "lab.yaml"]
    if rng.random() < 0.06:
        common += ["--pool", rng.choice(["four-24gb", text(rng).replace("\0", "")])]
        named = (*named, "--pool")
    if rng.random() < 0.1:
        common += ["--set", _override(rng)]
        named = (*named, "--set")
    calibration = rng.choice((b"", b"[", b"gpu: {}\n", b"matrix_tflops: {bf16: 1}\n", b"a: " + b"x" * 2**20))
    links = {"link": "lab.yaml", "loop": "loop"}
    files |= {"calibration.yaml": calibration}
    earlier: list[Argv] = []
    if rng.random() < 0.45:
        argv: Argv = ("plan", *common, *rng.choice(((), ("--json",), ("--top", "3"))))
    else:
        more = ("--also", "accelerate") if rng.random() < 0.15 else ()
        argv = ("generate", *common, "--out", "out", *more)
        if rng.random() < 0.3:  # over what an earlier one wrote
            files |= {f"out/{name}": content for name, content in _rendered("cpu-demo@cpu-demo").items()}
        named = (*named, "--also", "Accelerate", ".j2")
    return Case(
        kind=kind, files=files, commands=(*earlier, argv), links=links, pipes=("pipe",),
        named=named, checks_output=argv[0] == "generate",
    )  # fmt: skip


def _override(rng: random.Random) -> str:
    key = rng.choice(
        [rng.choice(list(key_places(Experiment))), text(rng), "training.steps", "data.videos", "name"]
    )
    value = rng.choice([text(rng), str(number(rng)), "[" * 80, "{a: *b}", "!!python/object:os.system x"])
    return f"{key}={value}".replace("\0", "\\0")


def _file(rng: random.Random, tree: Any, keys: tuple[str, ...]) -> bytes:
    how = rng.random()
    if how < 0.25:
        return _yaml(changed(rng, tree, keys, gentle=True))
    if how < 0.35:
        return _yaml(_with_shell(rng, tree))
    if how < 0.72:
        return _yaml(changed(rng, tree, keys, gentle=False))
    if how < 0.85:
        return damaged(rng, _yaml(tree))
    return _odd_yaml(rng, _yaml(tree).decode()).encode("utf-8", "surrogatepass")


def _with_shell(rng: random.Random, tree: Any) -> Any:
    """Every name and path is one that a shell would obey, or one of them."""
    from tests.campaigns.fuzzing.trees import places

    texts = [(one, key) for one, key in places(tree) if isinstance(one[key], str)]
    for one, key in texts if rng.random() < 0.2 else rng.sample(texts, 1):
        one[key] = rng.choice(SHELL)
    return tree


def _yaml(tree: Any) -> bytes:
    try:
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=10**6).encode(
            "utf-8", "replace"
        )
    except (yaml.YAMLError, TypeError):
        return json.dumps(tree).encode()


def _odd_yaml(rng: random.Random, written: str) -> str:
    """YAML as such: anchors, merges, tags, bombs, depth, documents."""
    lines = written.split("\n")
    at = rng.randrange(len(lines))
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    key, _, value = lines[at].strip().partition(": ")
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"b{n}: &b{n} [{', '.join(['*a' if n == 0 else f'*b{n - 1}'] * 9)}]\n" for n in range(9)
    )
    odd = rng.choice((
        f"{indent}<<: *a", f"{indent}<<: {{x: 1}}", f"{indent}{key}: &a {value}\n{indent}again: *a", f"{indent}{key}: *a",
        f"{indent}{key}: &a [*a]", f"{indent}{key}: !!python/object/apply:os.system ['touch canary']",
        f"{indent}{key}: !!python/name:os.system", f"{indent}{key}: !!binary aGk=", f"{indent}{key}: !!set {{a, b}}",
        f"{indent}{key}: !!float {value}", f"{indent}{key}: ! {value}", f"{indent}? [a, b]\n{indent}: c",
        f"{indent}? {{a: b}}\n{indent}: c", f"{indent}1: 2", f"{indent}null: 2", f"{indent}1.5: x", f"{indent}{key}: |\n{indent}  a\n{indent}  b",
        f"{indent}{key}: >-\n{indent}  a\n\n{indent}  b", f"{indent}{key}: {'[' * 200}{']' * 200}", f"{indent}{key}: {'{a: ' * 100}1{'}' * 100}",
        f"{indent}{key}: [{', '.join(['1'] * 30000)}]", f"{indent}{key}: {'9' * 5000}", f"{indent}{key}: 0x{'f' * 41}",
        f"{indent}{key}: {'x' * 200000}", "---", "...", "--- !!map", "%YAML 1.1\n---", "%TAG ! tag:x,2000:\n---", bomb,
        f"{indent}{key}: 190:20:30", f"{indent}{key}: 0o{'7' * 30}", f"{indent}{key}: 1e999999999", f"{indent}{key}: 12345678901234567890123",
        f"{indent}{key}: yes", f"{indent}{key}: 2001-12-14t21:59:43.10-05:00", f"{indent}{key}: \"\\x00\"", f"{indent}{key}: \"\\ud800\"",
        f"{indent}{key}: \"\\U0010ffff\\ufffe\"", f"{indent}\"{'k' * 3000}\": 1", f"{indent}\"a\\nb\": 1", f"{indent}{key}: '", "\ud800",
        f"{indent}{key}:{value}", f"{indent}{key} {value}", f"{indent}- {key}", f"{indent}@{key}: `x", "#" * 100000,
    ))  # fmt: skip
    if rng.random() < 0.5:
        lines[at] = odd
    else:
        lines.insert(at, odd)
    return "\n".join(lines)


@cache
def _read(kind: str, name: str) -> bytes:
    return (EXAMPLES / kind / f"{name}.yaml").read_bytes()


@cache
def _rendered(name: str) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in (EXAMPLES / "rendered" / name).iterdir() if path.is_file()
    }
