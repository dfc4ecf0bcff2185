"""Held-out samples are functions of clip and noise level, and every one is computed once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.encoders import save_text_encoder
from tests.model.sizes import geometry, tiny
from tests.model.training import tiny_experiment, write_clips
from vdsgen.errors import VdsgenError
from vdsgen.model.cache.content import Contents
from vdsgen.model.cache.families import encoders_of
from vdsgen.model.cache.fill import fill
from vdsgen.model.cache.source import CachedSource
from vdsgen.model.cache.state import cache_state, folder_of, hashes_of
from vdsgen.model.cache.store import open_store
from vdsgen.model.data.clips import ClipReader
from vdsgen.model.data.held_out import as_held_out, hold_out
from vdsgen.model.data.index import Index, scan
from vdsgen.model.data.samples import source_for
from vdsgen.model.objective import (
    diffusion_loss,
    losses_of_samples,
    sample_timestep,
    timestep_at,
)
from vdsgen.model.pipeline import Batch
from vdsgen.model.sources import AnySource, open_source
from vdsgen.model.validation import (
    BundledHeldOut,
    Rows,
    ValidationMetrics,
    batches_of,
    held_out_of,
)
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.data import ClipSize, LatentCache, TextEncoder
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.training import Diffusion, Validation

WHERE = geometry(tiny(condition="none"))


@pytest.mark.parametrize(
    "diffusion",
    [
        Diffusion(timestep_sampling="uniform"),
        Diffusion(timestep_sampling="logit_normal", logit_mean=0.5, logit_std=1.5),
        Diffusion(timestep_sampling="logit_normal", shift=3.0),
    ],
    ids=["uniform", "logit-normal", "shifted"],
)
def test_noise_levels_are_quantiles_of_those_that_training_draws(diffusion: Diffusion) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([sample_timestep(generator, diffusion, WHERE) for _ in range(4000)])
    for quantile in (0.1, 0.5, 0.9):
        time = timestep_at(quantile, diffusion, WHERE)
        assert time.dtype == torch.float32
        below = float((drawn < time).float().mean())
        assert below == pytest.approx(quantile, abs=4 * math.sqrt(quantile * (1 - quantile) / 4000))


@given(samples=st.integers(1, 60), ranks=st.integers(1, 8), micro_batch_size=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_data_ranks_share_samples_out_and_wait_for_each_other(
    samples: int, ranks: int, micro_batch_size: int
) -> None:
    rows = [Rows.of(samples, rank, ranks, micro_batch_size) for rank in range(ranks)]
    assert len({(row.size, row.micro_batches) for row in rows}) == 1, "as many forwards on every rank"
    assert rows[0].size <= micro_batch_size
    places = [
        place for row in rows for micro in range(row.micro_batches) for place in row.of_micro_batch(micro)
    ]
    assert sorted(place for place in places if place < samples) == list(range(samples))
    assert len(places) - samples < ranks * rows[0].size, "repeats fill up one micro-batch"


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> BundledHeldOut:
    clips = write_clips(tmp_path_factory.mktemp("validation") / "clips", count=4)
    validation = Validation(fraction=0.5, quantiles=(0.2, 0.5, 0.8), clips=2)
    experiment = tiny_experiment(clips, validation=validation)
    training, held = hold_out(scan(experiment.data), experiment.data, validation)
    found = held_out_of(experiment, held, source_for(experiment, training))
    assert isinstance(found, BundledHeldOut)
    return found


def of_cache(experiment: Experiment, held: Index) -> AnySource:
    """The held-out clips, encoded into the experiment's cache."""
    store = open_store(folder_of(experiment.data), make=True)
    contents = Contents(store.folder)
    hashes = hashes_of(held, contents, range(len(held.entries)))
    state = cache_state(held, as_held_out(experiment.data), encoders_of(experiment), hashes)
    assert len(state.clips) == len(held.entries)
    fill(state.missing(store), "cpu")
    store.refresh()
    return open_source(experiment, held, "cpu", state.reader(store, 0, 0.0))


@pytest.mark.parametrize("condition", ["class", "text"])
def test_held_out_clips_of_a_cache_are_those_that_are_encoded(
    tmp_path: Path, condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows, flips and sizes of training are none of theirs; no encoder is loaded to read them."""
    clips = write_clips(tmp_path / "clips", count=4)
    (clips / "stripes 1.txt").write_text("a red car")
    validation = Validation(fraction=0.5, quantiles=(0.2, 0.5, 0.8), clips=2)
    given = tiny_experiment(clips, (ClipSize(frames=2, height=16, width=32),), validation=validation)
    changes: dict[str, Any] = {
        "random_flip": True,
        "cache": LatentCache(folder=str(tmp_path / "cache"), windows_per_clip=3, dtype="fp32"),
    }
    if condition == "text":
        changes["text_encoder"] = TextEncoder(
            path=str(save_text_encoder(tmp_path / "text", "t5")), max_tokens=8
        )
        model = {"condition": "text", "text_hidden_size": 16, "classes": None}
        assert isinstance(given.model, Vdt)
        given = given.model_copy(update={"model": given.model.model_copy(update=model)})
    experiment = given.model_copy(update={"data": given.data.model_copy(update=changes)})
    training, held = hold_out(scan(experiment.data), experiment.data, validation)
    encoded = held_out_of(experiment, held, source_for(experiment, training))
    source = of_cache(experiment, held)

    def loads(*_: Any, **__: Any) -> None:
        pytest.fail("an encoder is loaded")

    monkeypatch.setattr("vdsgen.model.sources.codec_for", loads)
    monkeypatch.setattr("vdsgen.model.data.text._load", loads)
    monkeypatch.setattr(ClipReader, "_decode", loads)
    read = held_out_of(experiment, held, source)
    assert (read.paths, read.samples) == (encoded.paths, encoded.samples)
    for place in range(encoded.samples):
        (inputs, target), (expected, expected_target) = (plain(one.sample(place)) for one in (read, encoded))
        assert torch.equal(target, expected_target)
        assert len(inputs) == len(expected) == 3
        assert all(torch.equal(one, other) for one, other in zip(inputs, expected, strict=True))


def test_a_held_out_clip_that_the_cache_lacks_is_named(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips", count=2)
    given = tiny_experiment(clips, validation=Validation(fraction=0.5))
    cache = LatentCache(folder=str(tmp_path / "cache"))
    experiment = given.model_copy(update={"data": given.data.model_copy(update={"cache": cache})})
    _, held = hold_out(scan(experiment.data), experiment.data, Validation(fraction=0.5))
    source = of_cache(experiment, held)
    assert isinstance(source, CachedSource)
    source.reader.entries = {}
    with pytest.raises(VdsgenError, match=r"the held-out clip stripes .\.mp4 is not in the cache"):
        held_out_of(experiment, held, source)


def plain(batch: Batch) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """With one tensor as its target."""
    inputs, target = batch
    assert isinstance(target, torch.Tensor)
    return inputs, target


def test_a_sample_is_a_function_of_clip_and_noise_level(held_out: BundledHeldOut) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert held_out.samples == len(held_out.paths) * 3
    for place in range(held_out.samples):
        (noised, timestep, condition), target = plain(held_out.sample(place))
        again = plain(held_out.sample(place))
        assert torch.equal(noised, again[0][0]) and torch.equal(target, again[1])
        assert noised.shape == target.shape == held_out.latents[0].shape
        assert timestep == held_out.timesteps[place % 3]
        assert condition == held_out.conditions[place // 3]
        # flow: noised = clean + t * (noise - clean), and noise - clean is the target.
        clean = held_out.latents[place // 3]
        assert torch.allclose(noised, clean + timestep * target, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn from the global generator"
    first, second = plain(held_out.sample(0)), plain(held_out.sample(1))
    assert torch.allclose(first[1], second[1]), "the same noise at all levels of a clip"


def test_batches_hold_the_samples_in_their_places(held_out: BundledHeldOut) -> None:
    rows = Rows.of(held_out.samples, 1, 2, 2)
    inputs, target = plain(next(batches_of(held_out, rows)))
    assert len(target) == 2
    for row, place in enumerate(rows.of_micro_batch(0)):
        expected, expected_target = plain(held_out.sample(place))
        assert torch.equal(target[row], expected_target)
        assert all(torch.equal(column[row], one) for column, one in zip(inputs, expected, strict=True))


def test_losses_of_samples_are_what_the_training_loss_is_the_mean_of() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 3, 4, 2, 5, 5, generator=generator)
    losses = losses_of_samples(prediction.bfloat16(), target)
    assert losses.shape == (3,) and losses.dtype == torch.float32
    assert losses.mean() == pytest.approx(float(diffusion_loss(prediction.bfloat16(), target)), rel=1e-6)
    assert losses[1] == pytest.approx(float((prediction[1].bfloat16() - target[1]).square().mean()), rel=1e-5)


def test_a_line_is_json_where_the_loss_is_no_number() -> None:
    metrics = ValidationMetrics(
        step=3, weights="trained", loss=math.nan, quantiles=(0.5,), timesteps=(0.5,),
        loss_by_quantile=(math.inf,), clips=1, seconds=1.0, peak_memory_bytes=[1],
    )  # fmt: skip
    line = json.loads(metrics.line(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert line["loss"] is None and line["loss_by_quantile"] == [None]
