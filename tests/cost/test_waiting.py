"""Hidden states that a U-Net puts aside: what travels, and what outlives a checkpoint segment."""

from __future__ import annotations

from itertools import pairwise

from vdsgen.catalog.profiles import catalog_profile
from vdsgen.cost.layer_bytes import layer_bytes
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_tensors import StageTensors, stage_tensors
from vdsgen.spec.architecture import Geometry

PROFILE = catalog_profile("svd-xt")
WHERE = Geometry(frames=14, patches=8 * 16, text_tokens=1, latent_height=64, latent_width=128)
LAYERS = layer_bytes(PROFILE, WHERE, 1, "bf16")


def stage(start: int, stop: int, interval: int = 0) -> StageTensors:
    settings = Settings(
        pipeline_parallel_size=2,
        data_parallel_size=1,
        zero_stage=0,
        micro_batch_size=1,
        gradient_accumulation_steps=4,
        activation_checkpoint_interval=interval,
        dtype="bf16",
        gradient_accumulation_dtype="bf16",
        reduce_bucket_elements=0,
        allgather_bucket_elements=0,
    )
    return stage_tensors(LAYERS, settings, int(start > 0), start, stop)


def test_what_is_put_aside_on_the_way_down_is_joined_on_the_way_up() -> None:
    """By hand: the hidden state of 14 frames has C channels of a level's pixels, in two bytes."""
    down = {0: 320, 1: 640, 2: 1280, 3: 1280}
    size = {level: 2 * 14 * channels * (64 >> level) * (128 >> level) for level, channels in down.items()}
    # conv_in and two blocks of level 0, its half-size copy and two blocks of level 1, and so on
    aside = [size[0]] * 3
    for level in (1, 2, 3):
        aside += [2 * 14 * down[level - 1] * (64 >> level) * (128 >> level), size[level], size[level]]
    middle = PROFILE.layers.index("middle")
    assert LAYERS[middle].waiting == sum(aside)
    assert max(layer.waiting for layer in LAYERS) == sum(aside)
    assert LAYERS[0].waiting == LAYERS[-1].waiting == LAYERS[-2].waiting == 0
    falls = [a.waiting - b.waiting for a, b in pairwise(LAYERS[middle:]) if a.waiting != b.waiting]
    assert falls == aside[::-1]


def test_a_boundary_carries_what_waits() -> None:
    middle = PROFILE.layers.index("middle")
    first, last = stage(0, middle + 1), stage(middle + 1, len(LAYERS))
    side = LAYERS[0].side
    assert first.sent_bytes == last.received_bytes == LAYERS[middle].output + LAYERS[middle].waiting + side


def test_segments_keep_what_outlives_them() -> None:
    """Each layer its own segment: what is put aside is the segment before's output, and counted as that."""
    middle = PROFILE.layers.index("middle")
    assert stage(0, middle + 1, interval=1).crossing_bytes == 0
    whole = stage(0, middle + 1, interval=middle + 1)
    assert whole.crossing_bytes == LAYERS[middle].waiting
    assert stage(middle + 1, len(LAYERS), interval=3).crossing_bytes == 0
