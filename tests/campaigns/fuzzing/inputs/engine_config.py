"""DeepSpeed JSON, as people and other programs write it, through lint and its repairs."""

from __future__ import annotations

import json
import random
from functools import cache

from tests.campaigns.fuzzing.case import Argv, Case
from tests.campaigns.fuzzing.inputs.experiment_and_lab import EXAMPLES
from tests.campaigns.fuzzing.trees import changed, damaged
from tests.campaigns.fuzzing.values import text
from tests.review.lint.configs import case as linted_case
from vdsgen.catalog.engine_keys import engine_data


@cache
def _keys() -> tuple[str, ...]:
    return tuple(sorted({name for section in engine_data()["sections"].values() for name in section["keys"]}))


@cache
def _rendered() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(EXAMPLES.glob("rendered/*/ds_config.json")))


def case(rng: random.Random) -> Case:
    argv: list[str] = ["lint", "x.json"]
    argv += rng.choice(
        (
            [],
            [],
            ["--world-size", "4"],
            ["--pipeline-stages", "2"],
            ["--auto-filled"],
            ["--accelerator", text(rng).replace("\0", "")],
        )
    )
    argv += rng.choice(([], [], ["--json"], ["--format", "sarif"], ["--patch"], ["--fix"]))
    commands: tuple[Argv, ...] = (tuple(argv),)
    return Case(kind="DeepSpeed JSON", files={"x.json": content(rng)}, commands=commands, named=("x.json",))


def content(rng: random.Random) -> bytes:
    how = rng.random()
    if how < 0.3:
        return linted_case(rng, "").text.encode("utf-8", "surrogatepass")
    tree = json.loads(rng.choice(_rendered()))
    if how < 0.45:
        return _json(changed(rng, tree, _keys(), gentle=True), rng)
    if how < 0.75:
        return _json(changed(rng, tree, _keys(), gentle=False), rng)
    if how < 0.9:
        return damaged(rng, _json(tree, rng))
    return odd_json(rng).encode("utf-8", "surrogatepass")


def _json(tree: object, rng: random.Random) -> bytes:
    return json.dumps(tree, indent=rng.choice((None, 2)), ensure_ascii=rng.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


def odd_json(rng: random.Random) -> str:
    """JSON as such."""
    return rng.choice((
        "[" * 100_000, '{"a":' * 100_000, "{}", "[]", "null", "1", '"x"', "NaN", '{"a": NaN}', '{"a": Infinity}',
        '{"a": ' + "9" * 5000 + "}", '{"a": 1e99999}', '{"a": -' + "9" * 400 + "}", '{"a": 1, "a": 2}', '{"\\ud800": 1}',
        '{"a": "\\ud800"}', '{"a": "\\u0000"}', "{'a': 1}", "{a: 1}", "// x\n{}", "/* x", '{"a": 01}', '{"a": +1}', '{"a": .5}',
        '{"a": 1,}', '{"' + "k" * 100_000 + '": 1}', '{"a": "' + "x" * 1_000_000 + '"}',
        "{" + ",".join(f'"k{n}": {n}' for n in range(5000)) + "}", "{" + '"a": {' * 500 + "}" * 501, "\ufeff{}",
        '{"step": 1e400}', '{"files": {"..": 1}}', "\ud800", '{"fp16": ' + "[" * 900 + "]" * 900 + "}",
    ))  # fmt: skip
