"""A model as a list of layers, in one process and in stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.sizes import geometry, random_batch, randomise, tiny
from vdsgen.errors import VdsgenError
from vdsgen.model.build import build_engine
from vdsgen.model.objective import diffusion_loss
from vdsgen.model.pipeline import SequentialModel, check_partition, layer_specs


def gradients(interval: int, condition: str = "text") -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of a small model whose segments are `interval` layers long."""
    model = tiny(condition=condition)
    where = geometry(model)
    network = SequentialModel(layer_specs(model, where, seed=2), interval, diffusion_loss)
    randomise(network)
    inputs, target = random_batch(model, where)
    loss = network(inputs, target)
    loss.backward()
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert len(found) == len(list(network.parameters())), "a parameter without a gradient"
    return loss.detach(), found


@pytest.mark.parametrize("condition", ["none", "class", "text"])
@pytest.mark.parametrize("interval", [1, 2, 3, 6, 9])
def test_checkpointed_gradients_are_the_plain_ones_bit_for_bit(interval: int, condition: str) -> None:
    loss, plain = gradients(0, condition)
    checkpointed_loss, checkpointed = gradients(interval, condition)
    assert torch.equal(loss, checkpointed_loss)
    assert plain.keys() == checkpointed.keys()
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


@pytest.mark.parametrize(("interval", "recomputed"), [(0, 0), (1, 6), (3, 6), (4, 6)])
def test_checkpointing_runs_every_layer_of_a_segment_again(interval: int, recomputed: int) -> None:
    model = tiny()
    where = geometry(model)
    network = SequentialModel(layer_specs(model, where, seed=2), interval, diffusion_loss)
    calls: list[str] = []
    for name, layer in network.named_children():
        layer.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    inputs, target = random_batch(model, where)
    network(inputs, target).backward()
    assert len(calls) == 6 + recomputed


def test_layers_are_named_by_their_place() -> None:
    model = tiny()
    network = SequentialModel(layer_specs(model, geometry(model), seed=0), 0, diffusion_loss)
    names = [name for name, _ in network.named_children()]
    assert names == ["0", "1", "2", "3", "4", "5"]
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == set(names)


def test_without_a_target_the_model_predicts() -> None:
    model = tiny()
    where = geometry(model)
    network = SequentialModel(layer_specs(model, where, seed=0), 3, diffusion_loss)
    randomise(network)
    inputs, target = random_batch(model, where)
    with torch.no_grad():
        assert torch.allclose(diffusion_loss(network(inputs), target), network(inputs, target))


def test_the_loss_is_the_mean_over_all_micro_batches() -> None:
    model = tiny(condition="class")
    where = geometry(model)
    network = SequentialModel(layer_specs(model, where, seed=0), 0, diffusion_loss)
    randomise(network)
    inputs, target = random_batch(model, where, batch=4)
    halves = [network(tuple(x[part] for x in inputs), target[part]) for part in (slice(0, 2), slice(2, 4))]
    assert torch.allclose(network(inputs, target), torch.stack(halves).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("partition", "complaint"),
    [
        ([0, 3], "from 0 to 6"),
        ([1, 6], "from 0 to 6"),
        ([6], "from 0 to 6"),
        ([0, 1, 6], "stage 0 .* holds no block"),
        ([0, 5, 6], "stage 1 .* holds no block"),
        ([0, 3, 3, 6], "stage 1 .* holds no block"),
        ([0, 4, 2, 6], "stage 1 .* holds no block"),
    ],
)
def test_a_partition_that_no_pipeline_can_run_is_refused(partition: Sequence[int], complaint: str) -> None:
    with pytest.raises(VdsgenError, match=complaint):
        check_partition(partition, layers=6)


@pytest.mark.parametrize("partition", [[0, 6], [0, 2, 6], [0, 3, 6], [0, 2, 3, 4, 6]])
def test_a_partition_with_a_block_in_every_stage_is_accepted(partition: Sequence[int]) -> None:
    check_partition(partition, layers=6)


def test_a_geometry_that_does_not_fit_is_refused_with_both_sides() -> None:
    learned = tiny(position="learned", max_frames=3)
    with pytest.raises(VdsgenError, match=r"4 latent frames .*max_frames 3"):
        layer_specs(learned, geometry(learned), seed=0)
    with pytest.raises(VdsgenError, match="text tokens"):
        layer_specs(tiny(), geometry(tiny(condition="none")), seed=0)
    with pytest.raises(VdsgenError, match=r"patch_size \(5\) must divide .*4 x 6"):
        layer_specs(tiny(patch_size=5), geometry(tiny()), seed=0)


@pytest.mark.parametrize(
    ("pipeline", "complaint"),
    [
        ({"stages": 2, "partition": [0, 6]}, "needs 3 entries for 2 stages"),
        ({"plain_layers": [1, 0]}, "needs 1 entries, one a stage"),
        ({"plain_layers": [2]}, "stage 0 has 6 layers and checkpoint interval 0"),
        ({"plain_layers": [6], "activation_checkpoint_interval": 1}, "leave a layer to recompute"),
        ({"stages": 2, "partition": [0, 1, 6]}, "stage 0 .* holds no block"),
        ({"stages": 1, "partition": [0, 7]}, "from 0 to 6"),
    ],
)
def test_a_config_that_contradicts_the_model_is_refused_before_any_rank_is_joined(
    pipeline: dict[str, Any], complaint: str
) -> None:
    model = tiny()
    with pytest.raises(VdsgenError, match=complaint):
        build_engine({"pipeline": pipeline}, model, geometry(model), seed=0)
