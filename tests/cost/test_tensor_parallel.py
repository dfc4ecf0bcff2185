"""What sharing blocks between ranks costs and saves, on the catalogue's traced profiles."""

from __future__ import annotations

import pytest

from tests.cost.test_communication import settings
from tests.planner.examples import pool
from vdsgen.catalog import models, profile_for
from vdsgen.cost.memory import MemoryModel
from vdsgen.cost.step import StepTimeModel
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.calibration import Calibration
from vdsgen.spec.profile import ModelProfile

SIZES = models()["vdt-2.1b"].sizes
GEOMETRY = Geometry(frames=16, patches=256, text_tokens=77, latent_height=32, latent_width=32)
LAYERS = SIZES.depth + 2
TWO_STAGES = (0, LAYERS // 2, LAYERS)


@pytest.fixture(scope="module")
def profile() -> ModelProfile:
    found = profile_for(SIZES)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def times(profile: ModelProfile) -> StepTimeModel:
    return StepTimeModel(profile, GEOMETRY, pool(16))


@pytest.mark.parametrize("interval", [0, 1])
@pytest.mark.parametrize("tensor", [2, 4, 8])
@pytest.mark.parametrize("pipeline", [1, 2])
def test_parts_make_the_step(times: StepTimeModel, pipeline: int, tensor: int, interval: int) -> None:
    layout = settings(
        pipeline,
        max(1, 8 // tensor // pipeline),
        tensor_parallel_size=tensor,
        activation_checkpoint_interval=interval,
    )
    partition = TWO_STAGES if pipeline == 2 else (0, LAYERS)
    time = times.step(layout, partition)
    assert min(time.split()) >= -1e-9
    assert sum(time.split()) == pytest.approx(time.step_seconds)
    assert times.lower_bound_seconds(layout, partition) <= time.step_seconds * (1 + 1e-9)
    written = time.predicted()
    assert written.split is not None
    assert written.split.tensor_seconds == time.tensor_seconds > 0
    assert written.communication_fraction > time.tensor_seconds / time.step_seconds * 0.99


@pytest.mark.parametrize(("interval", "passes"), [(0, 10), (1, 15)])
def test_the_exchange_is_an_all_reduce_a_sublayer_forward_and_backward(
    profile: ModelProfile, interval: int, passes: int
) -> None:
    """Five sublayers; recomputation runs forward once more, and the convolution's backward gathers, which
    moves half. By hand, without the gradients of the text and of the head norms: below 1 %."""
    at_once = Calibration(link_bandwidth_gb_per_second=20.0, link_latency_microseconds=0.0)
    times = StepTimeModel(profile, GEOMETRY, pool(8, calibration=at_once))
    layout = settings(
        1, 1, tensor_parallel_size=2, activation_checkpoint_interval=interval, gradient_accumulation_steps=3
    )
    hidden_bytes = 2 * GEOMETRY.frames * GEOMETRY.patches * SIZES.hidden_size
    one = 2 * (2 - 1) / 2 * hidden_bytes / 20e9
    expected = 3 * SIZES.depth * (passes - 0.5) * one
    assert times.step(layout, (0, LAYERS)).tensor_seconds == pytest.approx(expected, rel=0.01)


def test_more_ranks_compute_less_each_and_do_the_same_work(times: StepTimeModel) -> None:
    found = [times.step(settings(1, 1, tensor_parallel_size=size), (0, LAYERS)) for size in (1, 2, 4, 8)]
    computing = [time.compute_seconds for time in found]
    assert computing == sorted(computing, reverse=True)
    assert computing[1] > computing[0] / 2, "norms and modulation are on every rank"
    assert len({time.model_flops for time in found}) == 1
    peaks = [time.peak_flops_per_second for time in found]
    assert peaks == pytest.approx([peaks[0] * size for size in (1, 2, 4, 8)])


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_rank_holds_its_share_of_states_and_less_of_activations(profile: ModelProfile, zero: int) -> None:
    memory = MemoryModel(profile, GEOMETRY)
    alone, shared = (
        settings(1, 2, zero, tensor_parallel_size=size, gradient_accumulation_dtype="bf16") for size in (1, 2)
    )
    whole, part = memory.states(alone, 0, LAYERS), memory.states(shared, 0, LAYERS)
    fraction = profile.shared_by(2).parameters / profile.parameters
    assert 0.5 < fraction < 0.53
    assert part.optimizer_bytes / whole.optimizer_bytes == pytest.approx(fraction, rel=1e-4)
    held = [memory.activations(one, 0, 0, LAYERS).stash_bytes for one in (alone, shared)]
    assert 0.5 < held[1] / held[0] < 0.8
    assert memory.tensor_bytes(shared, 0, 0, LAYERS) < memory.tensor_bytes(alone, 0, 0, LAYERS)


def test_a_size_that_was_not_traced_is_refused(profile: ModelProfile, times: StepTimeModel) -> None:
    layout = settings(1, 1, tensor_parallel_size=3)
    with pytest.raises(ValueError, match="tensor parallel sizes 1, 2, 4, 8, not 3"):
        times.step(layout, (0, LAYERS))
    with pytest.raises(ValueError, match="tensor parallel sizes 1, 2, 4, 8, not 3"):
        MemoryModel(profile, GEOMETRY).tensor_bytes(layout, 0, 0, LAYERS)
