from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vdsgen.model.objective import alpha_sigma, exact_prediction
from vdsgen.model.recipes.clips import noise_for
from vdsgen.model.sample import (
    SHEET_FRAMES,
    Conditions,
    guided,
    sample_latents,
    side_by_side,
    to_pixels,
    write_contact_sheet,
)
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.sampling import SolverSettings
from vdsgen.spec.training import Diffusion

GEOMETRY = Geometry(frames=3, patches=4, text_tokens=0, latent_height=4, latent_width=4)
MODEL = Vdt(in_channels=5, patch_size=2, hidden_size=8, depth=1, heads=2, mlp_hidden_size=8, condition="none")


@pytest.mark.parametrize(
    "diffusion",
    [
        Diffusion(prediction="flow"),
        Diffusion(prediction="flow", shift=3.0),
        Diffusion(prediction="v"),
        Diffusion(prediction="epsilon", noise_schedule="cosine"),
        Diffusion(prediction="epsilon", noise_schedule="linear"),
    ],
    ids=str,
)
def test_a_perfect_network_leads_from_noise_to_the_clip(diffusion: Diffusion) -> None:
    noise = noise_for(MODEL.in_channels, GEOMETRY, 2, seed=3)
    clean = torch.linspace(-1, 1, noise.numel()).view_as(noise)

    def perfect(inputs: tuple[Tensor, ...]) -> Tensor:
        timestep = inputs[1]
        assert timestep.shape == (2,)
        assert timestep.dtype == torch.float32
        return exact_prediction(clean, noise, timestep.view(2, 1, 1, 1, 1), diffusion)

    sampling = SolverSettings(7, guidance_scale=1.0)
    alpha, sigma = alpha_sigma(torch.tensor(1.0), diffusion)
    result = sample_latents(perfect, alpha * clean + sigma * noise, None, diffusion, sampling, GEOMETRY)
    assert torch.allclose(result, clean, atol=2e-3)


def test_a_better_solver_of_a_curved_path_needs_more_steps() -> None:
    """A network that knows the data's mean and spread only: its path bends."""
    diffusion = Diffusion(prediction="flow")
    noise = noise_for(MODEL.in_channels, GEOMETRY, 1, seed=0).double()
    spread = 0.3

    def gaussian(inputs: tuple[Tensor, ...]) -> Tensor:
        x, t = inputs[0], inputs[1].double().view(-1, 1, 1, 1, 1)
        variance = (1 - t) ** 2 * spread**2 + t**2
        return (t - (1 - t) * spread**2) / variance * x

    # The exact flow scales the noise to the data's spread.
    exact = spread * noise
    errors = [
        float(
            (sample_latents(gaussian, noise, None, diffusion, SolverSettings(n, 1.0), GEOMETRY) - exact)
            .abs()
            .max()
        )
        for n in (4, 16, 64)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize(("scale", "calls", "value"), [(1.0, 1, 5.0), (0.0, 1, 2.0), (3.0, 2, 11.0)])
def test_guidance_extrapolates_from_none_to_wanted(scale: float, calls: int, value: float) -> None:
    conditions = Conditions(wanted=torch.tensor([5.0]), none=torch.tensor([2.0]))
    seen: list[Any] = []

    def predict(inputs: tuple[Tensor, ...]) -> Tensor:
        seen.append(inputs)
        return inputs[2]

    assert guided(predict, torch.zeros(1), torch.zeros(1), conditions, scale).tolist() == [value]
    assert len(seen) == calls


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_stages_without_conditions_take_part_in_every_prediction(scale: float) -> None:
    made: dict[bool, int] = {}
    for sees in (True, False):
        calls: list[int] = []

        def predict(inputs: tuple[torch.Tensor, ...], calls: list[int] = calls) -> torch.Tensor:
            calls.append(len(inputs))
            return torch.zeros(1)

        held = Conditions(torch.zeros(1), torch.zeros(1)) if sees else Conditions()
        guided(predict, torch.zeros(1), torch.zeros(1), held, scale)
        assert set(calls) == {3 if sees else 2}
        made[sees] = len(calls)
    assert made[True] == made[False]


def test_noise_depends_on_seed_and_clip_alone() -> None:
    first, more = noise_for(MODEL.in_channels, GEOMETRY, 1, 7), noise_for(MODEL.in_channels, GEOMETRY, 3, 7)
    assert torch.equal(first[0], more[0])
    assert not torch.equal(more[0], more[1])
    assert not torch.equal(first, noise_for(MODEL.in_channels, GEOMETRY, 1, 8))


def test_pixels_are_clipped_and_rounded() -> None:
    video = torch.tensor([-1.5, -1.0, 0.0, 1.0, 2.0]).view(1, 5, 1, 1).expand(3, 5, 1, 1)
    assert to_pixels(video)[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    ("clips", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 2), (5, 2, 3)]
)
def test_clips_stand_side_by_side_in_order(clips: int, rows: int, columns: int) -> None:
    videos = [torch.full((4, 2, 3, 3), clip + 1, dtype=torch.uint8) for clip in range(clips)]
    joined = side_by_side(videos)
    assert joined.shape == (4, 2 * rows, 3 * columns, 3)
    shown = [int(joined[0, 2 * (i // columns), 3 * (i % columns), 0]) for i in range(rows * columns)]
    assert shown == list(range(1, clips + 1)) + [0] * (rows * columns - clips)


def test_a_contact_sheet_shows_first_and_last_frame(tmp_path: Path) -> None:
    from matplotlib import image

    clip = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 4, 4, 3) * 10
    write_contact_sheet([clip, clip], tmp_path / "sheet.png")
    sheet = image.imread(tmp_path / "sheet.png")
    assert sheet.shape[:2] == (8, 4 * SHEET_FRAMES)
    assert (sheet[0, 0, :3] * 255).round().tolist() == [0, 0, 0]
    assert (sheet[0, -1, :3] * 255).round().tolist() == [190, 190, 190]
