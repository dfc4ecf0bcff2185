"""Clips go to the size that is nearest to them, every size has its turns, and nothing is left out unsaid."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsgen.model.data.buckets import bucket_lines, bucket_text, clips_of_sizes, nearest_size, size_order
from vdsgen.model.data.index import Entry, Index, last_start
from vdsgen.model.data.order import LONGEST_ROUND, Share, SizeOrder, round_shares
from vdsgen.model.data.video import VideoInfo
from vdsgen.spec.data import ClipSize, Data

WIDE, TALL, LONG = (ClipSize(frames=8, height=32, width=64), ClipSize(frames=8, height=64, width=32),
                    ClipSize(frames=24, height=48, width=48))  # fmt: skip


def data(*buckets: ClipSize, **changes: Any) -> Data:
    """8 frames of 48 x 48 and further sizes; each clip at the nearest."""
    return Data(
        videos="clips", frames=8, height=48, width=48, buckets=buckets, bucketing="nearest", **changes
    )


def index(*clips: tuple[int, int, int]) -> Index:
    """Clips of so many frames, height and width."""
    infos = [VideoInfo(frames, Fraction(8), width, height) for frames, height, width in clips]
    return Index("clips", tuple(Entry(f"{i}.mp4", info, info.frames - 8, "") for i, info in enumerate(infos)))


@pytest.mark.parametrize(
    ("clip", "place"),
    [
        ((30, 360, 640), 1),  # wide
        ((30, 640, 360), 2),  # tall
        ((30, 480, 480), 3),  # square, and long enough for the longest
        ((10, 480, 480), 0),  # square, and too short for it
        ((30, 480, 482), 3),  # square but for two columns
        ((30, 300, 400), 3),  # 4:3 is nearer to 1:1 than to 2:1
    ],
)
def test_shape_comes_first_then_length(clip: tuple[int, int, int], place: int) -> None:
    assert nearest_size(index(clip).entries[0], data(WIDE, TALL, LONG)) == place


@pytest.mark.parametrize(("edge", "place"), [(200, 1), (96, 1), (90, 0), (48, 0), (30, 2)])
def test_of_equally_near_sizes_the_largest_that_need_not_be_enlarged(edge: int, place: int) -> None:
    large, small = (ClipSize(frames=8, height=edge, width=edge) for edge in (96, 32))
    assert nearest_size(index((30, edge, edge)).entries[0], data(large, small)) == place


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(8, 40), st.integers(16, 99), st.integers(16, 99)), min_size=1))
def test_every_clip_has_one_size_that_it_is_long_enough_for(clips: list[tuple[int, int, int]]) -> None:
    spec, found = data(WIDE, TALL, LONG), index(*clips)
    parts = clips_of_sizes(found, spec)
    assert sorted(position for part in parts for position in part) == list(range(len(clips)))
    for size, part in zip(spec.sizes, parts, strict=True):
        assert all(last_start(found.entries[p].info, size.frames, None) >= 0 for p in part)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=6).filter(any))
def test_sizes_come_as_often_as_they_have_clips_and_none_is_left_out(clips: list[int]) -> None:
    shares = round_shares(clips)
    assert sum(shares) <= LONGEST_ROUND + len(clips)
    for count, share in zip(clips, shares, strict=True):
        assert (share > 0) == (count > 0)
        assert share == pytest.approx(sum(shares) * count / sum(clips), rel=0.01, abs=1)


def test_every_clip_comes_equally_often() -> None:
    found, spec = index(*[(30, 360, 640)] * 6, *[(30, 640, 360)] * 3, (9, 48, 48)), data(WIDE, TALL, LONG)
    share = Share(0, 1, 2, 2)
    order = size_order(found, spec, 5, share.gradient_accumulation_steps)
    assert order.shares == (1, 6, 3, 0)
    clips = clips_of_sizes(found, spec)
    seen = Counter(clips[draw.size][draw.turn % len(clips[draw.size])] for draw in share.draws(order, 0, 10))
    assert set(seen.values()) == {4} and len(seen) == 10
    lines = bucket_lines(found, spec, order, 4)
    assert lines == [
        "bucket 8 x 48 x 48: 1 clip, 1 of 10 steps; fewer than the 4 of a step, so that they come again "
        "within it",
        "bucket 8 x 32 x 64: 6 clips, 6 of 10 steps",
        "bucket 8 x 64 x 32: 3 clips, 3 of 10 steps; fewer than the 4 of a step, so that they come again "
        "within it",
        "bucket 24 x 48 x 48: no clip is nearest to it, it is never trained at",
    ]


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
    st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any),
    st.booleans(),
    st.integers(0, 5),
)
def test_turns_of_a_size_follow_each_other_in_every_layout(
    layout: tuple[int, int, int], shares: list[int], by_micro_batch: bool, start: int
) -> None:
    ranks, micro, accumulation = layout
    order = SizeOrder(1, tuple(shares), accumulation if by_micro_batch else 1)
    parts = [Share(rank, ranks, micro, accumulation) for rank in range(ranks)]
    draws = sorted(draw for part in parts for draw in part.draws(order, 0, start + 4))
    for size in range(len(shares)):
        turns = [draw.turn for draw in draws if draw.size == size]
        assert turns == list(range(len(turns)))
    later = sorted(draw for part in parts for draw in part.draws(order, start, start + 4))
    assert later == draws[start * parts[0].global_batch_size :], "resuming changes nothing"
    for part in parts:
        own = list(part.draws(order, 0, 4))
        for first in range(0, len(own), micro):
            assert len({draw.size for draw in own[first : first + micro]}) == 1


def test_what_a_step_holds_is_told() -> None:
    sizes = data(WIDE).sizes
    assert bucket_text(sizes[:1], (0, 0)) is None
    assert bucket_text(sizes, (1,)) == bucket_text(sizes, (1, 1)) == "8 x 32 x 64"
    assert bucket_text(sizes, (1, 0, 1)) == "8 x 48 x 48 (1), 8 x 32 x 64 (2)"


@settings(max_examples=20)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(2, 3)), st.integers(1, 3), st.integers(0, 3)
)
def test_turns_within_a_step_stay_in_a_later_layout(
    layout: tuple[int, int, int], smaller: int, start: int
) -> None:
    """On one rank, with micro-batches that are parts of those that the run was begun with."""
    ranks, micro, units = layout
    order = SizeOrder(1, (2, 1, 3), units)
    begun = [Share(rank, ranks, micro * smaller, units) for rank in range(ranks)]
    later = Share(0, 1, micro, units * ranks * smaller, size_units_a_step=units)
    draws = sorted(draw for part in begun for draw in part.draws(order, start, start + 3))
    assert list(later.draws(order, start, start + 3)) == draws
    sizes = order.of_step(start, later.gradient_accumulation_steps)
    assert sizes == tuple(draw.size for draw in draws[: begun[0].global_batch_size : micro])
