from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vdsgen.model.consistency import REACH, Consistency, block_motion, consistency

FRAMES, HEIGHT, WIDTH = 6, 40, 48


def texture(seed: int = 0) -> Tensor:
    """(3, 2 H, 2 W) in [0, 1], smooth over about six pixels."""
    noise = torch.rand(1, 3, 2 * HEIGHT // 6, 2 * WIDTH // 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=(2 * HEIGHT, 2 * WIDTH), mode="bicubic")[0].clamp(0, 1)


def panned(rows: int, columns: int) -> Tensor:
    """uint8 (T, H, W, 3): the texture, moving by so many pixels a frame."""
    picture = texture()
    frames = [
        picture[:, 10 + t * rows : 10 + t * rows + HEIGHT, 10 + t * columns : 10 + t * columns + WIDTH]
        for t in range(FRAMES)
    ]
    return (torch.stack(frames).permute(0, 2, 3, 1) * 255).round().to(torch.uint8)


def of(clip: Tensor) -> Consistency:
    found = consistency([clip])
    assert found is not None
    return found


def test_a_still_picture_is_perfect() -> None:
    assert of(panned(0, 0)).values() == {
        "temporal_flickering": 1.0,
        "warping_error": 0.0,
        "frame_correlation": 1.0,
        "motion_pixels": 0.0,
    }


@pytest.mark.parametrize(("rows", "columns"), [(0, 2), (3, 0), (1, -1), (REACH, 0)])
def test_motion_is_found_and_undone(rows: int, columns: int) -> None:
    clip = panned(rows, columns)
    gray = clip.float().mean(-1)
    motion = block_motion(gray[0], gray[1])[:, 8:-8, 8:-8]
    assert (motion == torch.tensor([-rows, -columns])[:, None, None]).float().mean() > 0.9
    found = of(clip)
    assert found.warping_error < 1e-3
    assert found.motion_pixels == pytest.approx((rows**2 + columns**2) ** 0.5, rel=0.2)
    assert found.temporal_flickering < 1


def test_noise_on_each_frame_lowers_every_measure() -> None:
    clip = panned(0, 1)
    noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(1))
    measures = [of((clip + level * noise).clamp(0, 255).to(torch.uint8)) for level in (0, 10, 40)]
    assert measures[0].temporal_flickering > measures[1].temporal_flickering > measures[2].temporal_flickering
    assert measures[0].warping_error < measures[1].warping_error < measures[2].warping_error
    assert measures[0].frame_correlation > measures[1].frame_correlation > measures[2].frame_correlation


def test_brightness_that_pumps_is_flicker_and_no_loss_of_correlation() -> None:
    clip = panned(0, 0).float()
    clip[1::2] = clip[1::2] * 0.8
    found = of(clip.to(torch.uint8))
    assert found.temporal_flickering < 0.95
    assert found.warping_error > 1e-3
    assert found.frame_correlation > 0.99


def test_clips_without_a_second_frame_have_no_measure() -> None:
    assert consistency([panned(0, 0)[:1]]) is None
    assert consistency([]) is None
    black = torch.zeros(3, 5, 7, 3, dtype=torch.uint8)
    assert of(black).values()["frame_correlation"] == 1
