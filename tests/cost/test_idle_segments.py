"""What a trainer keeps of checkpoint segments in host memory, frozen layers or not, is what plans say."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.cost.activation_cases import settings_of
from vdsgen.cost.activations import stage_activations
from vdsgen.cost.layer_bytes import LayerBytes
from vdsgen.cost.stage_tensors import checkpoint_segments, idle_layers
from vdsgen.model.activation_offload import ActivationOffload
from vdsgen.model.pipeline import reached_by_backward, run_segments

WIDTH, ROWS = 4, 8
HIDDEN_BYTES = ROWS * WIDTH * 4


class Layer(nn.Module):
    """(hidden) -> (hidden)"""

    def __init__(self, trains: bool) -> None:
        super().__init__()
        self.product = nn.Linear(WIDTH, WIDTH).requires_grad_(trains)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self.product(inputs[0]),)


def layers_of(trains: list[bool]) -> tuple[list[Layer], list[LayerBytes]]:
    known: dict[str, Any] = {"side": 0, "forward_transient": 0, "backward_transient": 0}
    return [Layer(one) for one in trains], [
        LayerBytes(saved=0, output=HIDDEN_BYTES, trains=one, **known) for one in trains
    ]


models = st.lists(st.booleans(), min_size=1, max_size=8).map(lambda trains: [*trains, True])


@given(models, st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_host_memory_is_what_the_trainer_keeps_there(trains: list[bool], interval: int, plain: int) -> None:
    modules, layers = layers_of(trains)
    offload = ActivationOffload()
    result = run_segments(modules, (torch.randn(ROWS, WIDTH),), interval, offload, plain)
    planned = settings_of(1, interval, "fp32")._replace(
        gradient_accumulation_steps=1, offload_activations=True, stage_plain_layers=(plain,) if plain else ()
    )
    found = stage_activations(layers, planned, 0, 0, len(layers))
    assert offload.buffers.allocated_bytes == found.host_bytes
    result[0].sum().backward()
    assert [layer.product.weight.grad is not None for layer in modules] == trains


@given(models, st.integers(1, 5), st.integers(0, 2), st.booleans())
@settings(max_examples=30, deadline=None)
def test_trainer_and_plan_agree_on_what_backward_comes_to(
    trains: list[bool], interval: int, selective: int, received: bool
) -> None:
    """A first stage's latents need no gradient; what a later one receives does."""
    modules, _ = layers_of(trains)
    whole = len(trains) - selective
    segments = checkpoint_segments(whole, interval)
    idle = 0 if received else idle_layers(segments, len(trains), trains)
    segments += tuple((index, index + 1) for index in range(whole, len(trains)))
    x: tuple[Tensor, ...] = (torch.randn(ROWS, WIDTH, requires_grad=received),)
    reached = []
    for begin, end in segments:
        reached.append(reached_by_backward(modules[begin:end], x))
        for layer in modules[begin:end]:
            x = layer(x)
    assert reached == [end > idle for _, end in segments]
