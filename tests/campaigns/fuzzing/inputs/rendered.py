"""Rendered directories that somebody changed: through check, diff, lint and a launch that starts nothing."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import yaml

from tests.campaigns.fuzzing.case import Argv, Case
from tests.campaigns.fuzzing.inputs.engine_config import odd_json
from tests.campaigns.fuzzing.inputs.experiment_and_lab import EXAMPLES
from tests.campaigns.fuzzing.trees import changed, damaged, places
from tests.campaigns.fuzzing.values import SHELL, text
from vdsgen.catalog.inputs import open_inputs
from vdsgen.catalog.profiles import profile_for
from vdsgen.catalog.resolve import resolve_model
from vdsgen.planner.plan import make_plan
from vdsgen.render.render import render_plan

PAIRS = (
    ("cpu-demo", "cpu-demo"), ("article-1.5b-pinned", "four-24gb"), ("article-1.2b", "two-hosts"),
    ("article-1.2b", "shared-node"),
)  # fmt: skip
CHANGED = ("plan.json", "ds_config.json", "train.yaml", "hostfile", "launch.sh", "PLAN.md")


@cache
def rendered(experiment: str, lab: str) -> dict[str, bytes]:
    opened, resolved = open_inputs(EXAMPLES / f"labs/{lab}.yaml", EXAMPLES / f"experiments/{experiment}.yaml")
    profile = profile_for(resolve_model(resolved.model), resolved.training)
    assert profile is not None
    return dict(render_plan(make_plan(resolved, opened.pools[0], profile), resolved))


def clips(folder: str = "data/clips") -> dict[str, bytes]:
    """What a launch looks for: nobody reads it."""
    return {
        f"{folder}/a.mp4": b"",
        "data/videos/a.mp4": b"",
        "models/autoencoder/x": b"",
        "models/text-encoder/x": b"",
    }


def case(rng: random.Random) -> Case:
    whole = rendered(*rng.choice(PAIRS))
    files = dict(whole)
    for name in (
        rng.sample(CHANGED[:4], rng.choice((1, 1, 1, 2))) if rng.random() < 0.93 else [rng.choice(CHANGED)]
    ):
        changed_file = changed_one(rng, name, files[name])
        if changed_file is None:
            del files[name]
        else:
            files[name] = changed_file
    below = {f"plan/{name}": content for name, content in files.items()}
    below |= {f"whole/{name}": content for name, content in whole.items()} | clips()
    output = rng.choice(("run", "run", text(rng).replace("\0", "") or "run"))
    commands: list[Argv] = [
        ("check", "plan"),
        ("diff", "whole", "plan", "--format", rng.choice(("text", "markdown", "json"))),
        ("lint", "plan/ds_config.json"),
        launched(rng, "plan", output),
        launched(rng, "plan", output),
        ("cache", "plan", "--check"),
    ]
    links = (
        {f"plan/{rng.choice(CHANGED)}": rng.choice(("../data", "/dev/null", "nowhere", "../whole/plan.json"))}
        if rng.random() < 0.03
        else {}
    )
    return Case(
        kind="rendered directory", files=below, links=links, commands=tuple(rng.sample(commands, rng.choice((1, 2, 2)))),
        named=(*CHANGED, "plan", "data.videos", "--output", "--launcher", "run", "GPU", "CUDA", output[:100]),
    )  # fmt: skip


def launched(rng: random.Random, directory: str, output: str) -> Argv:
    launcher = rng.choice(
        (
            (),
            ("--launcher", "ssh"),
            ("--launcher", "torchrun"),
            ("--launcher", "slurm"),
            ("--launcher", "deepspeed"),
        )
    )
    return ("launch", directory, f"--output={output}", "--dry-run", *launcher)


def changed_one(rng: random.Random, name: str, content: bytes) -> bytes | None:
    """None: the file is gone."""
    how = rng.random()
    if how < 0.04:
        return None
    if how < 0.2 or name in ("launch.sh", "PLAN.md", "hostfile"):
        return damaged(rng, content)
    if how < 0.26:
        return odd_json(rng).encode("utf-8", "surrogatepass")
    tree: Any = yaml.safe_load(content) if name == "train.yaml" else json.loads(content)
    keys = tuple(str(key) for _, key in places(tree) if isinstance(key, str)) or ("a",)
    if how < 0.36:
        texts = [(one, key) for one, key in places(tree) if isinstance(one[key], str)]
        if texts:
            one, key = rng.choice(texts)
            one[key] = rng.choice(SHELL)
    else:
        tree = changed(rng, tree, keys, gentle=how < 0.55)
    if name == "train.yaml":
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=10**6).encode(
            "utf-8", "replace"
        )
    return json.dumps(tree, indent=2).encode()
