"""Training works: two clips are learnt by heart, and samples drawn from noise show them.

`python -m tests.benchmarks.convergence` does the same with four real clips and the demo's model.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.ranks import run_ranks
from tests.model.test_layouts import config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STEPS = 400


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    given = config(2, 1) | {
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": 1,
        "train_batch_size": 8,
    }
    given["pipeline"] = given["pipeline"] | {"partition": [0, 2, 4]}
    given["optimizer"]["params"] |= {"lr": 6e-3, "eps": 1e-8, "weight_decay": 0.0}
    return run_ranks("tests.model.convergence_worker", 2, {"config": given, "steps": STEPS})


def test_samples_show_the_clip_that_they_were_told_to(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        for own, errors in enumerate(answer["after"]):
            assert errors[own] < 0.06, answer["after"]  # 18 dB
            assert errors[own] < min(e for clip, e in enumerate(errors) if clip != own) / 4
        assert min(error for errors in answer["before"] for error in errors) > 0.5


def test_the_loss_falls(answers: list[dict[str, Any]]) -> None:
    losses = answers[0]["losses"]
    assert sum(losses[-30:]) < 0.2 * sum(losses[:30])
