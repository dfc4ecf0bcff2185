"""DeepSpeed's real engine trains diffusers' models in stages as one process trains the unwrapped ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.model.families.engine_worker import ADAMW, CLIPPING, STEPS, figures_of, mean_square, micro_batches
from tests.model.families.stages import built, unwrapped
from tests.model.families.tiny import TINY
from tests.model.ranks import DIFFUSERS, run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

CASES: list[dict[str, Any]] = [
    # First: the engine keeps a pipeline's grid for engines to come.
    {"tiny": "mochi", "partition": [0, 6], "zero": 3, "interval": 1},
    {"tiny": "wan", "partition": [0, 3, 6], "zero": 0},
    # A boundary in the middle of the U: six skips cross it.
    {"tiny": "svd", "partition": [0, 10, 22], "zero": 1, "interval": 1},
    # An integer mask travels; and slices of joined tensors do.
    {"tiny": "hunyuan video", "partition": [0, 4, 6], "zero": 1},
    # The last stage has no use for the text.
    {"tiny": "latte", "partition": [0, 4, 6], "zero": 0},
]


def plainly_trained(name: str) -> dict[str, Any]:
    """Two samples a step, one process, torch's own optimizer."""
    tiny = TINY[name]
    model = unwrapped(tiny, built(tiny))
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)  # type: ignore[arg-type]
    batches = micro_batches(tiny)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        total = 0.0
        for _ in range(2):
            inputs, target = next(batches)
            loss = mean_square(tiny.forward(model, inputs), target) / 2
            torch.autograd.backward(loss)
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIPPING)
        optimizer.step()
        losses.append(total)
    with torch.no_grad():
        prediction = tiny.forward(model, next(micro_batches(tiny))[0])
    weights = {name: figures_of(p) for name, p in model.named_parameters()}
    return {"losses": losses, "prediction": prediction, "weights": weights}


def test_stages_and_partitioned_weights_train_as_the_unwrapped_model_does() -> None:
    answers = run_ranks("tests.model.families.engine_worker", 2, {"cases": CASES}, 400, DIFFUSERS)
    for index, case in enumerate(CASES):
        ranks = [answer[index] for answer in answers]
        wanted = plainly_trained(case["tiny"])
        weights = {name: figures for rank in ranks for name, figures in rank["weights"].items()}
        assert weights.keys() == wanted["weights"].keys()
        for name, (total, norm) in wanted["weights"].items():
            assert math.isclose(weights[name][1], norm, rel_tol=1e-4, abs_tol=1e-6), (case, name)
            assert math.isclose(weights[name][0], total, rel_tol=1e-4, abs_tol=2e-4 * max(norm, 1)), (
                case,
                name,
            )
        for rank in ranks:
            assert rank["losses"] == pytest.approx(wanted["losses"], rel=1e-4)
            found = torch.tensor(rank["prediction"]).view_as(wanted["prediction"])
            torch.testing.assert_close(found, wanted["prediction"], rtol=1e-3, atol=1e-3)
        if case["zero"] == 3:  # nothing is whole on a rank but what a layer needs while it runs
            whole = sum(p.numel() for layer in built(TINY[case["tiny"]]) for p in layer.parameters())
            assert all(rank["held_when_built"] < 0.1 * whole for rank in ranks)
