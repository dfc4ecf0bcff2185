"""What is cached is what would have been encoded; only what changed is encoded again; damage is found."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.clips import cut_off, numbered, write_frames, write_numbered
from tests.encoders import save_autoencoder, save_text_encoder
from tests.model.cache.made import cached, cached_source, fill_cache, state_of
from tests.model.data.test_samples import experiment_of
from vdsgen.errors import VdsgenError
from vdsgen.model.cache import fill as filling
from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.needs import window_starts
from vdsgen.model.cache.shards import write_shard
from vdsgen.model.cache.store import open_store
from vdsgen.model.data.decode import decode_clip
from vdsgen.model.data.index import scan
from vdsgen.model.data.loader import batches_for
from vdsgen.model.data.order import Draw, Share
from vdsgen.model.data.samples import source_for
from vdsgen.model.data.video import VideoError
from vdsgen.spec.data import ClipSize, Data, LatentCache

at = Draw.of_one_size
ALL_WINDOWS = {"windows_per_clip": 13, "dtype": "fp32"}
"""Clips of 20 frames have 13 windows of 8."""


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four clips of 20 frames, of contents of their own: two captions, one of them twice, and none."""
    folder = tmp_path / "clips"
    for number, name in enumerate("abcd"):
        write_frames(folder / f"{name}.mp4", numbered(20, first=20 * number), rate=20 if name == "d" else 10)
    (folder / "a.txt").write_text("a red car")
    (folder / "b.txt").write_text("a red car")
    (folder / "c.txt").write_text("a man walks")
    return folder


def age(folder: Path) -> None:
    """As if everything had been written an hour ago: files that were just written are hashed again."""
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))


def test_with_all_windows_in_fp32_samples_are_those_without_a_cache_to_the_last_bit(
    clips: Path, tmp_path: Path
) -> None:
    buckets = (ClipSize(frames=4, height=16, width=32),)
    changes: dict[str, Any] = {"condition": "class", "dropout": 0.3, "random_flip": True, "buckets": buckets}
    # The smaller size has 17 windows.
    settings = ALL_WINDOWS | {"windows_per_clip": 17 * 13}
    with_cache = cached(clips, tmp_path / "cache", cache=settings, workers=2, **changes)
    without = experiment_of(clips, **changes)
    share = Share(0, 1, 2, 2)
    with (
        batches_for(cached_source(with_cache), share, stop_step=6) as found,
        batches_for(source_for(without, scan(without.data)), share, stop_step=6) as expected,
    ):
        pairs = list(zip(found, expected, strict=True))
    assert len(pairs) == 12
    for (inputs, target), (other_inputs, other_target) in pairs:
        for tensor, other in zip((*inputs, target), (*other_inputs, other_target), strict=True):
            assert torch.equal(tensor, other)


def test_text_and_autoencoder_run_once_for_each_caption_and_window(clips: Path, tmp_path: Path) -> None:
    text = {"path": str(save_text_encoder(tmp_path / "t5", "t5")), "max_tokens": 6}
    folder = save_autoencoder(tmp_path / "vae", "AutoencoderKL")
    latents = {"codec": "autoencoder", "path": str(folder), "channels": 4, "spatial_factor": 2}
    changes: dict[str, Any] = {
        "text_encoder": text, "latents": latents, "condition": "text", "in_channels": 4, "dropout": 0.4,
    }  # fmt: skip
    experiment = cached(clips, tmp_path / "cache", cache=ALL_WINDOWS, **changes)
    made = fill_cache(experiment)
    assert made.entries == 4 * 13 + 3, "two captions, and the empty one"
    source = cached_source(experiment)
    plain = source_for(experiment_of(clips, **changes), scan(experiment.data))
    for sample in range(6):
        found = source.finish(source.preparation.prepare(at(sample)))
        expected = plain.sample(at(sample))
        for name in ("noised", "timestep", "target", "condition"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert torch.equal(source.conditions.of(0), plain.conditions.of(0))  # type: ignore[arg-type]
    # Another text encoder: captions are embedded again, clips are not.
    save_text_encoder(tmp_path / "t5", "clip")
    assert fill_cache(experiment).entries == 3


def test_a_cached_embedding_of_another_width_than_the_models_is_refused(clips: Path, tmp_path: Path) -> None:
    text = {"path": str(save_text_encoder(tmp_path / "t5", "t5", width=8)), "max_tokens": 6}
    experiment = cached(clips, tmp_path / "cache", text_encoder=text, condition="text")
    with pytest.raises(VdsgenError, match="embeddings of width 8, model"):
        cached_source(experiment)


def test_only_what_changed_is_encoded_again(clips: Path, tmp_path: Path) -> None:
    age(clips)
    folder = tmp_path / "cache"
    assert fill_cache(cached(clips, folder)).entries == 4
    assert fill_cache(cached(clips, folder)).entries == 0
    (clips / "sub").mkdir()
    (clips / "a.mp4").rename(clips / "sub" / "z.mp4")
    shutil.copy(clips / "b.mp4", clips / "copy.mp4")
    assert fill_cache(cached(clips, folder)).entries == 0, "renamed and copied"
    write_numbered(clips / "c.mp4", 25, rate=10)
    assert fill_cache(cached(clips, folder)).entries == 1, "another content under the same name"
    assert fill_cache(cached(clips, folder, cache={"windows_per_clip": 3})).entries == 2 * 4, (
        "the middle is there"
    )
    assert fill_cache(cached(clips, folder, cache={"dtype": "bf16"})).entries == 4
    assert fill_cache(cached(clips, folder, frame_rate=5.0)).entries == 3, "one at 20 a second, others at 10"
    assert fill_cache(cached(clips, folder, height=16)).entries == 4
    assert fill_cache(cached(clips, folder, random_flip=True)).entries == 4, "only mirrored ones are new"
    assert fill_cache(cached(clips, folder, latents={"codec": "space_to_depth", "factor": 8})).entries == 4
    assert fill_cache(cached(clips, folder)).entries == 0, "all settings are there beside each other"


def test_a_change_that_keeps_size_and_name_is_seen_and_known_files_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "a", tmp_path / "cache"
    cache.mkdir()
    file.write_bytes(b"one")
    os.utime(file, (1e9, 1e9))
    contents = Contents(cache)
    first = contents.of(file)
    contents.save()
    file.write_bytes(b"two")  # now: too near to the clock to be remembered
    again = Contents(cache)
    second = again.of(file)
    again.save()
    assert first != second
    file.write_bytes(b"six")
    assert Contents(cache).of(file) not in (first, second)
    os.utime(file, (1e9, 1.1e9))
    with monkeypatch.context() as patch:
        other = Contents(cache)
        other.of(file)
        patch.setattr("vdsgen.model.cache.content.hash_of", lambda _: pytest.fail("read again"))
        file.rename(tmp_path / "b")
        other.of(tmp_path / "b")
    (cache / "files.txt").write_bytes(b"\xff\x00 damaged\n" + (cache / "files.txt").read_bytes()[:-9])
    assert Contents(cache).of(tmp_path / "b") == other.of(tmp_path / "b")


def test_windows_are_spread_evenly_and_are_no_more_than_there_are(clips: Path) -> None:
    index = scan(Data(videos=str(clips), frames=8, height=32, width=32))
    entry = index.entries[0]
    found: dict[int, list[int]] = {}
    for windows in (1, 2, 3, 5, 100):
        cache = LatentCache(folder="x", windows_per_clip=windows)
        data = Data(videos=str(clips), frames=8, height=32, width=32, cache=cache)
        starts = window_starts(entry, data.sizes[0], data)
        found[windows] = [int(start * entry.info.frame_rate) for start in starts]
    assert found == {1: [6], 2: [0, 12], 3: [0, 6, 12], 5: [0, 3, 6, 9, 12], 100: list(range(13))}


def test_latents_that_do_not_fit_their_element_type_are_refused(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vdsgen.model.latents import SpaceToDepthCodec

    monkeypatch.setattr(SpaceToDepthCodec, "encode", lambda _self, video: video * 1e6)
    with pytest.raises(VdsgenError, match="latents is too large for fp16") as caught:
        fill_cache(cached(clips, tmp_path / "cache"))
    assert "data.cache.dtype" in str(caught.value.remedy)
    assert fill_cache(cached(clips, tmp_path / "cache", cache={"dtype": "bf16"})).entries == 4, (
        "no lock is left"
    )


def flip_bit(path: Path, offset: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "header"])
def test_a_damaged_shard_is_found_named_and_made_again(
    clips: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = cached(clips, tmp_path / "cache", cache=ALL_WINDOWS)
    source = cached_source(experiment)
    (shard,) = (tmp_path / "cache" / "shards").glob("*.safetensors")
    if damage == "cut":
        cut_off(shard, 0.5)
    elif damage == "gone":
        shard.unlink()
    else:
        flip_bit(shard, offset=-5 if damage == "flip" else 3)
    # A run that reads it passes over what is damaged, and has the next start look at all of it.
    try:
        with batches_for(source, Share(0, 1, 8, 1), stop_step=40) as batches:
            for _ in batches:
                pass
        assert batches.skipped and "in the cache, " in caplog.text
    except VdsgenError as error:
        assert "in a row is in the cache" in error.message
    assert (tmp_path / "cache" / "shards" / f"{shard.stem}.suspect").exists()
    state, store = state_of(experiment)
    wrong = dict(store.damaged) | store.verify(store.manifests, Contents(store.folder))
    assert list(wrong) == [shard.stem]
    store.retire(wrong)
    assert len(state.missing(store).clips) == 52
    assert fill_cache(experiment).entries == 52
    fresh = cached_source(experiment)
    assert fresh.finish(fresh.preparation.prepare(at(0))).noised.isfinite().all()


def test_an_interrupted_writer_leaves_what_it_had_written(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard a clip, and the third is never finished."""
    experiment = cached(clips, tmp_path / "cache")
    monkeypatch.setattr(filling, "FLUSH_SECONDS", -1.0)
    calls = iter(range(9))

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 2:
            (arguments[0] / ".half.safetensors.x").write_bytes(b"half")
            raise KeyboardInterrupt
        return write_shard(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(filling, "write_shard", interrupted)
        fill_cache(experiment)
    assert fill_cache(experiment).entries == 2
    assert fill_cache(experiment).entries == 0


def test_a_full_disk_is_told_and_nothing_half_written_counts(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    experiment = cached(clips, tmp_path / "cache")
    with monkeypatch.context() as patch, pytest.raises(VdsgenError, match="No space left on device"):
        patch.setattr(filling, "write_shard", full)
        fill_cache(experiment)
    assert fill_cache(experiment).entries == 4


def test_clips_that_cannot_be_decoded_are_named_and_the_next_takes_their_place(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(path: str, *arguments: Any, **options: Any) -> Any:
        if path.endswith("b.mp4"):
            raise VideoError(path, "is broken half-way")
        return decode_clip(path, *arguments, **options)

    monkeypatch.setattr(filling, "decode_clip", breaks)
    experiment = cached(clips, tmp_path / "cache")
    made = fill_cache(experiment)
    assert list(made.failed) == [str(clips / "b.mp4")] and made.entries == 3
    with batches_for(cached_source(experiment), Share(0, 1, 8, 1), stop_step=1) as batches:
        next(batches)
    assert batches.skipped == {"b.mp4": 2}


def test_a_folder_that_is_no_cache_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(VdsgenError, match="no cache of latents, and not empty"):
        open_store(tmp_path, make=True)
    (tmp_path / "cache.json").write_text('{"format": "vdsgen latent cache", "version": 99}')
    with pytest.raises(VdsgenError, match="version 99"):
        open_store(tmp_path, make=True)
    (tmp_path / "cache.json").write_text("[]")
    with pytest.raises(VdsgenError, match="no mark"):
        open_store(tmp_path, make=True)
