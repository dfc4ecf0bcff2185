"""A sample is a pure function of its index; broken clips are replaced, named and counted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.clips import cut_off, number_of, numbers_of, write_frames, write_numbered
from tests.encoders import save_autoencoder, save_text_encoder
from vdsgen.errors import VdsgenError
from vdsgen.model.data.captions import class_of
from vdsgen.model.data.clips import ClipReader
from vdsgen.model.data.index import scan
from vdsgen.model.data.order import Draw, permutation
from vdsgen.model.data.samples import Sample, SampleSource, source_for
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.data import Autoencoder, ClipSize, Data, TextEncoder
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.training import Diffusion, Training

at = Draw.of_one_size


def experiment_of(folder: Path, *, condition: Any = "none", **changes: Any) -> Experiment:
    """8 frames of 32 x 32, space-to-depth by 4; `changes` go to data, `seed` and `dropout` to training."""
    seed, dropout = changes.pop("seed", 0), changes.pop("dropout", 0.0)
    in_channels, shift = changes.pop("in_channels", 48), changes.pop("shift", 1.0)
    data = {"frames": 8, "height": 32, "width": 32, "workers": 0, **changes}
    data.setdefault("latents", {"codec": "space_to_depth", "factor": 4})
    model = Vdt(
        in_channels=in_channels, patch_size=1, hidden_size=16, depth=1, heads=1, mlp_hidden_size=16,
        condition=condition, classes=10, text_hidden_size=16,
    )  # fmt: skip
    diffusion = Diffusion(condition_dropout=dropout, shift=shift)
    training = Training(global_batch_size=4, steps=10, seed=seed, diffusion=diffusion)
    return Experiment(name="x", model=model, data=Data(videos=str(folder), **data), training=training)


def source_of(folder: Path, **changes: Any) -> SampleSource:
    experiment = experiment_of(folder, **changes)
    return source_for(experiment, scan(experiment.data))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Five numbered videos of 40 frames, in two sub-folders, one with a caption."""
    for name in ("run/a.mp4", "run/b.mp4", "walk/c.mp4", "walk/d.webm", "walk/e.gif"):
        write_numbered(tmp_path / name, 40, rate=10)
    (tmp_path / "run" / "b.txt").write_text("a red car")
    return tmp_path


def same(first: Sample, second: Sample) -> bool:
    pairs = zip(
        (first.noised, first.timestep, first.target),
        (second.noised, second.timestep, second.target),
        strict=True,
    )
    return all(torch.equal(one, other) for one, other in pairs)


def test_a_sample_is_a_function_of_seed_and_index(clips: Path) -> None:
    one, other = source_of(clips), source_of(clips)
    for index in (7, 0, 123456789012, 7):
        sample = one.sample(at(index))
        assert same(sample, other.sample(at(index)))
        assert sample.noised.shape == sample.target.shape == (48, 8, 8, 8)
        assert sample.noised.dtype == sample.target.dtype == sample.timestep.dtype == torch.float32
        assert sample.condition is None and 0 <= sample.timestep <= 1
    assert not same(one.sample(at(0)), one.sample(at(5))), "the same clip in another epoch has other noise"
    assert not same(one.sample(at(0)), source_of(clips, seed=1).sample(at(0)))


def test_samples_leave_the_global_generator_alone(clips: Path) -> None:
    source = source_of(clips)
    before = torch.get_rng_state()
    source.sample(at(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_windows_are_consecutive_start_everywhere_and_end_inside(clips: Path) -> None:
    reader = source_of(clips, height=48, width=64).reader
    starts = set()
    for sample in range(150):
        numbers = numbers_of(reader.read(at(sample)).video.permute(1, 2, 3, 0).numpy())
        assert numbers == list(range(numbers[0], numbers[0] + 8))
        starts.add(numbers[0])
    assert min(starts) == 0 and max(starts) == 32 and len(starts) > 25


def test_clips_come_in_the_order_of_the_epochs_permutation(clips: Path) -> None:
    reader = source_of(clips, seed=3).reader
    for epoch in range(3):
        order = permutation(3, epoch, 5).tolist()
        assert [reader.read(at(epoch * 5 + place)).position for place in range(5)] == order


def test_keeping_decoded_clips_changes_no_sample(clips: Path) -> None:
    kept = source_of(clips, frame_rate=5.0, random_flip=True)
    fresh = source_of(clips, frame_rate=5.0, random_flip=True, decoded_cache_mib=0)
    assert all(same(kept.sample(at(index)), fresh.sample(at(index))) for index in range(12))
    assert len(kept.reader._reels) == 5 and not fresh.reader._reels


def test_half_the_samples_are_mirrored_where_asked(tmp_path: Path) -> None:
    frames = np.zeros((8, 32, 32, 3), np.uint8)
    frames[:, :, :16] = 255
    write_frames(tmp_path / "half.mp4", frames)
    plain, flipped = source_of(tmp_path).reader, source_of(tmp_path, random_flip=True).reader
    lefts = [int(flipped.read(at(sample)).video[..., :16].float().mean() > 128) for sample in range(100)]
    assert 30 < sum(lefts) < 70
    assert all(plain.read(at(sample)).video[..., :16].float().mean() > 128 for sample in range(10))


def test_random_crops_move_and_centre_crops_do_not(tmp_path: Path) -> None:
    # 256 columns, each as bright as its number.
    ramp = np.broadcast_to(np.arange(256)[None, None, :, None], (8, 64, 256, 3)).astype(np.uint8)
    write_frames(tmp_path / "ramp.mp4", ramp)
    means = {}
    for crop in ("center", "random"):
        reader = source_of(tmp_path, crop=crop).reader
        means[crop] = [float(reader.read(at(sample)).video.float().mean()) for sample in range(40)]
    assert max(means["center"]) - min(means["center"]) < 2
    assert min(means["random"]) < 60 and max(means["random"]) > 195


def test_classes_follow_captions_then_folders_and_are_dropped_as_often_as_asked(clips: Path) -> None:
    source = source_of(clips, condition="class")
    paths = [entry.path for entry in source.reader.index.entries]
    for position, path in enumerate(paths):
        label = "a red car" if path == "run/b.mp4" else path.split("/")[0]
        condition = source.conditions.of(position)
        assert condition is not None and condition.dtype == torch.int64 and condition.shape == ()
        assert condition == class_of(label, 10)
    dropping = source_of(clips, condition="class", dropout=0.3).reader
    dropped = [dropping.read(at(sample)).dropped for sample in range(400)]
    assert 80 < sum(dropped) < 160
    everything = source_of(clips, condition="class", dropout=1.0)
    assert all(everything.sample(at(sample)).condition == 10 for sample in range(5))


def test_dropping_conditions_changes_neither_pixels_nor_noise(clips: Path) -> None:
    without, always = source_of(clips, condition="class"), source_of(clips, condition="class", dropout=1.0)
    assert all(same(without.sample(at(index)), always.sample(at(index))) for index in range(5))


def test_text_conditions_are_the_captions_embeddings(clips: Path, tmp_path_factory: Any) -> None:
    pytest.importorskip("transformers")
    folder = save_text_encoder(tmp_path_factory.mktemp("t5"), "t5")
    encoder = TextEncoder(path=str(folder), max_tokens=5)
    source = source_of(clips, condition="text", text_encoder=encoder)
    captioned, bare = source.conditions.of(1), source.conditions.of(0)
    dropped = source.conditions.of(1, dropped=True)
    assert captioned is not None and bare is not None and dropped is not None
    assert captioned.shape == (5, 16) and captioned[:3].abs().sum() > 0 and not captioned[3:].any()
    assert torch.equal(dropped, bare), "an empty caption stands for none"
    with pytest.raises(VdsgenError, match=r"width 16, model.text_hidden_size is 32"):
        experiment = experiment_of(clips, condition="text", text_encoder=encoder)
        model = experiment.model.model_copy(update={"text_hidden_size": 32})  # type: ignore[union-attr]
        source_for(experiment.model_copy(update={"model": model}), scan(experiment.data))
    with pytest.raises(VdsgenError, match=r"data.text_encoder is not set"):
        source_of(clips, condition="text")


def test_classes_that_several_labels_share_are_reported(
    clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = experiment_of(clips, condition="class")
    model = experiment.model.model_copy(update={"classes": 1})  # type: ignore[union-attr]
    source_for(experiment.model_copy(update={"model": model}), scan(experiment.data))
    assert "1 of 1 classes stand for several labels ('a red car' and 'run', for one)" in caplog.text


def test_an_autoencoders_samples_are_made_outside_the_workers(clips: Path, tmp_path_factory: Any) -> None:
    pytest.importorskip("diffusers")
    folder = save_autoencoder(tmp_path_factory.mktemp("vae"), "AutoencoderKL")
    spec = Autoencoder(codec="autoencoder", path=str(folder), channels=4, spatial_factor=2)
    source = source_of(clips, latents=spec, in_channels=4)
    prepared = source.preparation.prepare(at(3))
    assert prepared.pair is None and prepared.clip.video.dtype == torch.uint8
    sample = source.sample(at(3))
    assert sample.noised.shape == (4, 8, 16, 16) and same(sample, source.finish(prepared))
    with pytest.raises(VdsgenError, match=r"gives 4 channels, model.in_channels is 48"):
        source_of(clips, latents=spec)


def test_a_clip_cut_off_after_the_scan_is_replaced_by_the_next_of_its_epoch(clips: Path) -> None:
    source = source_of(clips)
    order = permutation(0, 0, 5).tolist()
    lost = source.reader.index.file(order[2])
    cut_off(lost, 0.1)
    clip = source.reader.read(at(2))
    assert clip.position == order[3]
    assert [case.path for case in clip.skipped] == [source.reader.index.entries[order[2]].path]
    assert clip.skipped[0].reason
    again = source_of(clips)  # a scan that leaves it out knows of four clips
    assert len(again.reader.index.entries) == 4
    assert torch.equal(source.reader.read(at(2)).video, clip.video)
    assert number_of(clip.video[:, 0].permute(1, 2, 0).numpy()) <= 32


def test_when_every_clip_has_gone_the_error_names_the_folder(clips: Path) -> None:
    reader: ClipReader = source_of(clips).reader
    for entry in reader.index.entries:
        (clips / entry.path).unlink()
    with pytest.raises(VdsgenError, match=r"none of 5 clips in a row .* does not exist") as caught:
        reader.read(at(0))
    assert str(clips) in caught.value.message


def test_no_label_at_all_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_numbered(tmp_path / "a.mp4", 8)
    with caplog.at_level(logging.WARNING):
        source = source_of(tmp_path, condition="class")
    assert "all are trained without a class" in caplog.text
    assert source.sample(at(0)).condition == 10


SIZES = (ClipSize(frames=16, height=16, width=64), ClipSize(frames=48, height=32, width=16))


def test_a_sample_has_the_size_that_is_drawn(clips: Path) -> None:
    write_numbered(clips / "run" / "long.mp4", 60, rate=10)
    source, alone = source_of(clips, buckets=SIZES), source_of(clips)
    for size, shape in enumerate([(48, 8, 8, 8), (48, 16, 4, 16), (48, 48, 8, 4)]):
        for turn in range(12):
            sample = source.sample(Draw(100 + turn, size, turn))
            assert sample.noised.shape == sample.target.shape == shape
    assert same(source.sample(at(3)), alone.sample(at(3))), "the first size is trained as it is alone"


def test_a_size_shows_the_clips_that_are_long_enough_each_once_an_epoch(clips: Path) -> None:
    for name in ("long.mp4", "longer.mp4"):
        write_numbered(clips / "run" / name, 60, rate=10)
    reader = source_of(clips, buckets=SIZES).reader
    for size, count in enumerate((7, 7, 2)):
        shown = [reader.read(Draw(turn, size, turn)).position for turn in range(2 * count)]
        assert sorted(shown) == sorted([*reader.index.long_enough(reader.data, reader.sizes[size])] * 2)
        assert sorted(set(shown[:count])) == sorted(shown[:count])


def test_keeping_decoded_clips_of_several_sizes_changes_no_sample(clips: Path) -> None:
    sizes = (SIZES[0], ClipSize(frames=4, height=16, width=64))
    kept, fresh = source_of(clips, buckets=sizes), source_of(clips, buckets=sizes, decoded_cache_mib=0)
    for sample in range(18):
        draw = Draw(sample, sample % 3, sample // 3)
        assert same(kept.sample(draw), fresh.sample(draw))
    assert len(kept.reader._reels) == 10, "five clips in two sizes of pictures"


def test_the_time_shift_follows_the_size(clips: Path) -> None:
    source = source_of(clips, buckets=SIZES[:1], shift="resolution")
    timesteps = [float(source.sample(Draw(5, size, 0)).timestep) for size in (0, 1)]
    assert timesteps[0] < timesteps[1], "longer clips need more noise for the same sample"
