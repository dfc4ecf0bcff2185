"""Whatever is handed in, lint says what it finds or that it cannot read it: no traceback, no hang."""

from __future__ import annotations

import json
import random
import time

import pytest

from tests.review.lint.configs import case
from tests.review.lint.lints import FOUR
from vdsgen.errors import InputError
from vdsgen.review.lint.context import Context
from vdsgen.review.lint.run import lint
from vdsgen.review.lint.text import as_text

LONGEST_SECONDS = 2.0
"""Of processor time, for one small file."""


def check(content: bytes, context: Context) -> None:
    start = time.process_time()
    try:
        linted = lint(content, "x.json", context)
    except InputError as error:
        assert all(problem.line is not None for problem in error.problems)
    else:
        assert as_text([linted], colour=False)
        for finding in linted.findings:
            assert len(finding.message) < 1000
            json.dumps(finding.fix)
    assert time.process_time() - start < LONGEST_SECONDS, content


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes(seed: int) -> None:
    rng = random.Random(seed)
    alphabet = b"{}[]:,\"'\\ \n\t#/*0123456789.-+eEtrufalsn\xff\xc3\xa9\xef\xbb\xbf\x00"
    for _ in range(1500):
        length = rng.randrange(60)
        check(bytes(rng.choices(alphabet, k=length)) if rng.random() < 0.5 else rng.randbytes(length), FOUR)


@pytest.mark.parametrize("seed", range(4))
def test_random_and_damaged_configs(seed: int) -> None:
    rng = random.Random(seed)
    for number in range(1000):
        text = case(random.Random(f"{seed}/{number}"), "").text
        if rng.random() < 0.3:
            at = rng.randrange(len(text))
            text = (
                text[:at] + rng.choice(['"', "{", "}", "9" * 30, "1e300", "\\u12", "nan", "'''"]) + text[at:]
            )
        check(
            text.encode("utf-8", "surrogatepass"),
            rng.choice([FOUR, Context(), Context(world_size=3, pipeline_stages=2)]),
        )


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 50_000,
        "[" * 50_000,
        "'''" * 20_001,
        '{"a": "' + "x" * 300_000,
        "#" * 300_000,
        "/*" * 100_000,
        '{"k' + "y" * 100_000 + '": 1}',
        "{" + ",".join(f'"k{n}": {n}' for n in range(5000)) + "}",
        '{"fp16": {"enabled": true, "initial_scale_power": 1e300}}',
        '{"fp16": {"enabled": true, "initial_scale_power": ' + "9" * 300 + "}}",
        '{"train_batch_size": ' + "9" * 4000 + ', "train_micro_batch_size_per_gpu": 3}',
    ],
    ids=range(11),
)
def test_large_and_deep(text: str) -> None:
    check(text.encode(), FOUR)
