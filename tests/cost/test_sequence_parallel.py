"""What sharing samples between ranks costs and saves: the planner's rule against traced layers."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from tests.cost.test_communication import settings
from tests.planner.examples import pool
from vdsgen.catalog import models, profile_for
from vdsgen.cost.memory import MemoryModel
from vdsgen.cost.step import StepTimeModel
from vdsgen.model.layers.sequence_parallel import SequenceRanks
from vdsgen.profile.build import build_profile
from vdsgen.profile.trace import Kind, empty_inputs, empty_layer, empty_tensors, traced, traced_checkpointed
from vdsgen.spec.architecture import Geometry, Vdt
from vdsgen.spec.profile import ModelProfile

SIZES = models()["vdt-2.1b"].sizes
GEOMETRY = Geometry(frames=16, patches=256, text_tokens=77, latent_height=32, latent_width=32)


class SilentSequence(SequenceRanks):
    """The first of `size` ranks. Exchanges take the memory that they take among real ranks."""

    sent_elements = 0

    def exchange(self, parts: Tensor) -> Tensor:
        self.sent_elements += parts.numel()
        return torch.empty_like(parts)


@pytest.mark.parametrize("position", ["rotary", "learned"])
@pytest.mark.parametrize("kind", ["embed", "block", "final"])
@pytest.mark.parametrize(("batch", "frames", "rows", "ranks"), [(1, 4, 8, 2), (2, 8, 8, 4), (3, 16, 16, 8)])
def test_a_ranks_share_of_a_layer_is_what_it_is_when_traced(
    position: Literal["rotary", "learned"], kind: Kind, batch: int, frames: int, rows: int, ranks: int
) -> None:
    """Every byte and FLOP but the traffic of exchanging, and of tables of positions."""
    model = Vdt(
        in_channels=4, patch_size=2, hidden_size=128, depth=1, heads=2, mlp_hidden_size=512,
        condition="text", text_hidden_size=16, position=position,
        max_frames=16, max_patches=512,
    )  # fmt: skip
    whole = Geometry(frames, rows * 6, 5, rows * 2, 12)
    own = whole._replace(patches=whole.patches // ranks, latent_height=whole.latent_height // ranks)
    silent = SilentSequence(ranks)
    with empty_tensors():
        layer = empty_layer(model, whole, kind, torch.bfloat16, sequence=silent)
        inputs = empty_inputs(model, batch, own, kind, torch.bfloat16)
        found = traced(layer, inputs)
        sent_elements = silent.sent_elements
        again = traced_checkpointed(layer, inputs)
    costs = build_profile(model).layer_types[kind].half
    share = whole._replace(sequence_parallel_size=ranks)
    for name in ("saved_bytes", "output_bytes", "side_bytes", "matmul_flops", "attention_flops"):
        assert getattr(found, name) == getattr(costs, name).at(batch, share), name
    assert max(found.forward_temporaries) == costs.forward_transient_bytes.at(batch, share)
    assert max(found.backward_temporaries) == costs.backward_transient_bytes.at(batch, share)
    assert costs.checkpointed is not None
    assert max(again.moments) == costs.checkpointed.peak_bytes.at(batch, share)
    assert again.recomputed_bytes == costs.checkpointed.recomputed_bytes.at(batch, share)
    # Two exchanges forward, two backward; one copy around each, two where samples lie between the parts.
    blocks = int(kind == "block")
    output = costs.output_bytes.at(batch, share)
    assert sent_elements * 2 == 4 * output * blocks
    copied = blocks * 2 * (1 if batch == 1 else 2) * 2 * output
    tables = 16 * whole.patches * 64  # whole where patches attend, a rank's where they are learned
    for name in ("forward_traffic_bytes", "backward_traffic_bytes"):
        more = getattr(found, name) - getattr(costs, name).at(batch, share)
        assert copied - tables <= more <= copied + tables, name


@pytest.fixture(scope="module")
def profile() -> ModelProfile:
    found = profile_for(SIZES)
    assert found is not None
    return found


@pytest.mark.parametrize("interval", [0, 1])
@pytest.mark.parametrize("sequence", [2, 4])
@pytest.mark.parametrize("pipeline", [1, 2])
def test_parts_make_the_step(profile: ModelProfile, pipeline: int, sequence: int, interval: int) -> None:
    times = StepTimeModel(profile, GEOMETRY, pool(16))
    layout = settings(
        pipeline,
        8 // sequence // pipeline,
        sequence_parallel_size=sequence,
        activation_checkpoint_interval=interval,
    )
    layers = SIZES.depth + 2
    partition = (0, layers // 2, layers) if pipeline == 2 else (0, layers)
    time = times.step(layout, partition)
    assert min(time.split()) >= -1e-9
    assert sum(time.split()) == pytest.approx(time.step_seconds)
    assert times.lower_bound_seconds(layout, partition) <= time.step_seconds * (1 + 1e-9)
    written = time.predicted()
    assert written.split is not None
    assert written.split.sequence_seconds == time.sequence_seconds > 0
    assert time.tensor_seconds == pytest.approx(0, abs=1e-12)
    alone = times.step(layout._replace(sequence_parallel_size=1), partition)
    assert (time.samples, time.model_flops) == (alone.samples, alone.model_flops)
    # All work grows with the patches but that on timestep and text, which every rank does.
    assert 1 < time.compute_seconds / (alone.compute_seconds / sequence) < 1.2


def test_the_exchange_is_four_all_to_alls_of_the_share_a_block(profile: ModelProfile) -> None:
    """By hand, two copies in memory for each of several samples' exchanges."""
    on = pool(8)
    layout = settings(1, 2, sequence_parallel_size=4, micro_batch_size=2, activation_checkpoint_interval=0)
    time = StepTimeModel(profile, GEOMETRY, on).step(layout, (0, SIZES.depth + 2))
    share_bytes = 2 * 16 * 256 * SIZES.hidden_size * 2 / 4
    sent = 3 / 4 * share_bytes / 20e9 + 3 * 10e-6
    copied = 2 * 2 * share_bytes / 900e9
    expected = layout.gradient_accumulation_steps * SIZES.depth * 4 * (sent + copied)
    assert time.sequence_seconds == pytest.approx(expected, rel=0.2)  # memory runs below its peak
    assert time.sequence_seconds > layout.gradient_accumulation_steps * SIZES.depth * 4 * sent


def test_activations_are_shared_and_states_are_spread_over_all_ranks_of_a_stage(
    profile: ModelProfile,
) -> None:
    memory = MemoryModel(profile, GEOMETRY)
    layers = SIZES.depth + 2
    shared = settings(1, 2, sequence_parallel_size=4, zero_stage=2)
    apart = shared._replace(data_parallel_size=8, sequence_parallel_size=1)
    assert memory.states(shared, 0, layers) == memory.states(apart, 0, layers)
    less, more = (memory.activations(one, 0, 0, layers).peak_bytes for one in (shared, apart))
    assert less == pytest.approx(more / 4, rel=0.02)
