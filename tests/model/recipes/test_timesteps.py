from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vdsgen.model.recipes.timesteps import draw_quantile, share_at
from vdsgen.spec.recipes.recipe import TimestepSampling, TokenShift

MANY = torch.linspace(1e-4, 1 - 1e-4, 9999, dtype=torch.float64)


def diffusers_shares(kind: str, sampling: TimestepSampling, draws: int = 200_000) -> Tensor:
    from diffusers.training_utils import compute_density_for_timestep_sampling

    drawn: Tensor = compute_density_for_timestep_sampling(
        kind,
        draws,
        logit_mean=sampling.mean,
        logit_std=sampling.std,
        mode_scale=sampling.mode_scale,
        generator=torch.Generator().manual_seed(0),
    )
    return drawn


@pytest.mark.parametrize(
    "sampling",
    [
        TimestepSampling(kind="uniform"),
        TimestepSampling(kind="logit_normal"),
        TimestepSampling(kind="logit_normal", mean=-0.5, std=1.5),
        TimestepSampling(kind="mode"),
        TimestepSampling(kind="mode", mode_scale=0.8),
    ],
    ids=str,
)
def test_shares_are_distributed_as_diffusers_draws_them(sampling: TimestepSampling) -> None:
    kind = "none" if sampling.kind == "uniform" else sampling.kind
    drawn = diffusers_shares(kind, sampling).double()
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        at = share_at(torch.tensor(quantile), sampling, 1.0)
        assert float((drawn <= at).double().mean()) == pytest.approx(quantile, abs=0.005)


def test_the_shift_is_applied_after_the_draw() -> None:
    sampling = TimestepSampling(kind="logit_normal")
    t = share_at(MANY, sampling, 1.0)
    assert torch.allclose(share_at(MANY, sampling, 5.0), 5 * t / (1 + 4 * t))


def test_ltx_shifts_the_mean_of_a_logit_normal() -> None:
    """LTX-Video-Trainer: sigmoid(N(mu, 1)) with mu linear in tokens."""
    shift = TokenShift((1024, 4096), (0.95, 2.05))
    t = share_at(MANY, TimestepSampling(kind="logit_normal"), shift.of(2560, 1))
    assert torch.allclose(t, torch.sigmoid(1.5 + torch.special.ndtri(MANY)))


@pytest.mark.parametrize("kind", ["uniform", "logit_normal", "mode"])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_a_range_cuts_the_shifted_distribution(kind: str, shift: float) -> None:
    sampling = TimestepSampling(kind=kind)  # type: ignore[arg-type]
    whole = share_at(MANY, sampling, shift)
    inside = whole[(whole >= 0.875) & (whole <= 0.95)]
    cut = share_at(MANY, replace(sampling, low=0.875, high=0.95), shift)
    assert float(cut.min()) >= 0.875 and float(cut.max()) <= 0.95
    for quantile in (0.1, 0.5, 0.9):
        assert float(torch.quantile(cut, quantile)) == pytest.approx(
            float(torch.quantile(inside, quantile)), abs=1e-3
        )


def test_no_share_is_an_end() -> None:
    for quantile in (0.0, 1.0):
        t = float(
            share_at(torch.tensor(quantile), TimestepSampling(kind="logit_normal", mean=0.7, std=1.6), 1.0)
        )
        assert 0 < t < 1
        assert math.isfinite(math.log(t / (1 - t)))


def test_draws_follow_the_generator() -> None:
    first, again = (draw_quantile(torch.Generator().manual_seed(4)) for _ in range(2))
    assert first == again
    assert first.dtype == torch.float64
