"""What was waited for is told as what it is, with a remedy."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.slow_disk import SlowSource
from tests.model.cache.made import cached, cached_source
from tests.model.cache.test_cache import clips
from tests.model.data.test_samples import source_of
from vdsgen.model.data import reading
from vdsgen.model.data.loader import Source, batches_for
from vdsgen.model.data.order import Share
from vdsgen.model.data.waiting import Spent, Waiting
from vdsgen.model.waiting_report import waiting_figures, waiting_lines

__all__ = ["clips"]
SLOW = 40_000.0
"""Bytes a second: a cached sample of 12 KB, half precision and its header aside, takes 1.2 s / 4."""


def test_waiting_is_for_making_until_the_sample_is_ready_and_for_hand_over_after() -> None:
    waiting = Waiting()
    waiting.count(Spent(3.0, 10, 1.0, 0.0, ready_at=104.0), began=100.0, got=105.0)
    assert (waiting.reading_seconds, waiting.decoding_seconds, waiting.encoding_seconds) == (3.0, 1.0, 0.0)
    assert (waiting.hand_over_seconds, waiting.seconds, waiting.samples) == (1.0, 5.0, 1)
    waiting.count(Spent(3.0, 10, 1.0, 0.0, ready_at=90.0), began=110.0, got=110.5)
    assert (waiting.reading_seconds, waiting.hand_over_seconds, waiting.read_bytes) == (3.0, 1.5, 20)
    assert Waiting.of_whole_numbers(waiting.whole_numbers()) == waiting


def told(source: Source, micro_batches: int = 3, **changes: Any) -> str:
    """What a run that waits all the time would say."""
    with batches_for(source, Share(0, 1, 2, 1), stop_step=micro_batches, **changes) as batches:
        began = time.perf_counter()
        for _ in batches:
            pass
        whole = time.perf_counter() - began
        assert batches.waiting.seconds == pytest.approx(whole, rel=0.1)
        figures = waiting_figures(
            [{"data_wait": batches.waiting.waits(), "loader": batches.waiting.loader()}]
        )
    cached = source.reader.data.cache is not None
    return "\n".join(waiting_lines(batches.waiting.seconds / whole, figures, cached=cached))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slow_disk_is_told_as_one_with_and_without_a_cache(
    clips: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading._disk, "delay", None)
    videos = SlowSource(source_of(clips, workers=0, decoded_cache_mib=0), SLOW)
    text = told(videos)
    assert "\n  disk: " in text and " at 0.0 MB/s" in text
    assert "set data.cache there" in text
    monkeypatch.setattr(reading._disk, "delay", None)
    latents = SlowSource(cached_source(cached(clips, tmp_path / "cache", workers=workers)), 10 * SLOW)
    text = told(latents)
    # Asked for 0.4 MB/s: on a busy machine a read takes longer still.
    assert re.search(r"\n  disk: .* at 0\.[1-4] MB/s \(0\.05 MB a sample\)", text), text
    assert "put data.cache.folder on a faster disk" in text


def test_without_a_slow_disk_it_is_decoding(clips: Path) -> None:
    text = told(source_of(clips, workers=0, decoded_cache_mib=0))
    assert "\n  decoding: " in text
    assert "set data.cache: clips are then decoded and encoded once" in text


def test_short_waits_have_no_remedy_and_runs_without_figures_say_what_they_know() -> None:
    figures = waiting_figures(
        [
            {
                "data_wait": {
                    "reading_seconds": 0.0,
                    "decoding_seconds": 0.0,
                    "encoding_seconds": 0.0,
                    "hand_over_seconds": 0.1,
                },
                "loader": {
                    "samples": 2,
                    "read_bytes": 0,
                    "reading_seconds": 0.0,
                    "decoding_seconds": 0.002,
                    "encoding_seconds": 0.0,
                },
            },
            {"step": 2},
        ]
    )
    assert waiting_lines(0.019, figures, cached=False) == ["Waiting for clips: 1.9% of the step"]
    assert waiting_lines(0.5, waiting_figures([{"step": 1}]), cached=False) == [
        "Waiting for clips: 50.0% of the step"
    ]
    lines = waiting_lines(0.05, figures, cached=True)
    assert lines[1] == "  of that hand-over 100%"
    assert "samples were made in time (1 ms each)" in lines[2] and "->" in lines[3]
