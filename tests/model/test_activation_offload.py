"""Inputs of checkpointed segments in host memory: the same numbers, and the bytes that leave the device."""

from __future__ import annotations

import weakref
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from tests.model.sizes import geometry, random_batch, randomise, tiny
from vdsgen.errors import VdsgenError
from vdsgen.model import activation_offload
from vdsgen.model.activation_offload import ActivationOffload, HostBuffers, Kept
from vdsgen.model.build import build_engine
from vdsgen.model.objective import diffusion_loss
from vdsgen.model.pipeline import SequentialModel, layer_specs, run_segments

BATCH = 2


def network(interval: int, offload: ActivationOffload | None, condition: str = "text") -> SequentialModel:
    model = tiny(condition=condition)
    built = SequentialModel(layer_specs(model, geometry(model), seed=2), interval, diffusion_loss, offload)
    randomise(built)
    return built


def hidden_bytes() -> int:
    model = tiny()
    where = geometry(model)
    return BATCH * where.frames * where.patches * model.hidden_size * 4


def trained(interval: int, offload: ActivationOffload | None, condition: str) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of two micro-batches, whose forwards come before both backwards."""
    built = network(interval, offload, condition)
    model = tiny(condition=condition)
    batches = [random_batch(model, geometry(model), BATCH, seed) for seed in range(2)]
    losses = [built(inputs, target) for inputs, target in batches]
    for loss in losses:
        loss.backward()
    found = [parameter.grad for parameter in built.parameters()]
    assert all(gradient is not None for gradient in found)
    return torch.stack(losses).detach(), found  # type: ignore[return-value]


@pytest.mark.parametrize("condition", ["none", "class", "text"])
@pytest.mark.parametrize("interval", [1, 2, 3, 6, 9])
def test_losses_and_gradients_are_the_same_bit_for_bit(interval: int, condition: str) -> None:
    plain_loss, plain = trained(interval, None, condition)
    loss, gradients = trained(interval, ActivationOffload(), condition)
    assert torch.equal(loss, plain_loss)
    assert all(torch.equal(one, other) for one, other in zip(gradients, plain, strict=True))


@pytest.mark.parametrize(("interval", "offloaded"), [(1, 5), (2, 2), (3, 1), (6, 0)])
def test_every_segment_but_the_one_with_the_latents_leaves_the_device(interval: int, offloaded: int) -> None:
    offload = ActivationOffload()
    built = network(interval, offload)
    inputs, target = random_batch(tiny(), geometry(tiny()), BATCH)
    loss = built(inputs, target)
    assert offload.buffers.allocated_bytes == offloaded * hidden_bytes()
    loss.backward()
    built(inputs, target).backward()
    assert offload.buffers.allocated_bytes == offloaded * hidden_bytes(), "buffers are used again"


class SavesAsTorchDidBefore(torch.autograd.Function):
    """What checkpointing of torch 2.11 does with a segment's arguments (_NoopSaveInputs): an empty
    tensor of its own is saved before them."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return torch.empty(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise AssertionError("nothing comes back through it")


def test_an_empty_tensor_that_torch_saves_first_is_not_taken_for_the_hidden_state() -> None:
    offload, hidden = ActivationOffload(), torch.ones(4, 8)
    with offload.forward(), offload.segment():
        saved: Any = SavesAsTorchDidBefore.apply(  # type: ignore[no-untyped-call]
            torch.empty(0, requires_grad=True), hidden, torch.ones(2)
        )
    assert offload.buffers.allocated_bytes == hidden.nbytes
    assert torch.equal(saved.grad_fn.saved_tensors[1], hidden)


def test_in_a_later_pipeline_stage_the_first_segments_input_leaves_too() -> None:
    """What a stage received needs a gradient, unlike latents."""
    offload = ActivationOffload()
    built = network(2, None)
    inputs, _ = random_batch(tiny(), geometry(tiny()), BATCH)
    with torch.no_grad():
        received = built.get_submodule("0")(inputs)
    received = tuple(tensor.detach().requires_grad_() for tensor in received)
    layers = [built.get_submodule(str(index)) for index in range(1, 5)]
    run_segments(layers, received, 2, offload)
    assert offload.buffers.allocated_bytes == 2 * hidden_bytes()


@pytest.mark.parametrize(("frozen", "offloaded"), [(1, 5), (3, 3)])
def test_behind_frozen_layers_inputs_leave_though_they_need_no_gradient(frozen: int, offloaded: int) -> None:
    """Of six layers as many as are `frozen` come first: nothing is kept for these, and the first that trains
    has an input without a gradient, which is kept to recompute it."""

    def adapted(offload: ActivationOffload | None) -> tuple[Tensor, list[Tensor]]:
        built = network(1, offload)
        for index in range(frozen):
            built.get_submodule(str(index)).requires_grad_(False)
        inputs, target = random_batch(tiny(), geometry(tiny()), BATCH)
        for _ in range(2):  # buffers that are not given back would show in the second
            loss = built(inputs, target)
            loss.backward()
        return loss.detach(), [p.grad for p in built.parameters() if p.grad is not None]

    offload = ActivationOffload()
    loss, gradients = adapted(offload)
    assert offload.buffers.allocated_bytes == offloaded * hidden_bytes()
    plain_loss, plain = adapted(None)
    assert torch.equal(loss, plain_loss)
    assert len(gradients) == len(plain) > 0
    assert all(torch.equal(one, other) for one, other in zip(gradients, plain, strict=True))


def test_at_most_two_hidden_states_come_back_at_a_time() -> None:
    """The one that backward works on, and the one before it."""
    on_device: set[int] = set()
    most = 0

    def noted(kept: Kept) -> Tensor:
        nonlocal most
        tensor = room(kept)
        on_device.add(id(tensor))
        weakref.finalize(tensor, on_device.discard, id(tensor))
        most = max(most, len(on_device))
        return tensor

    room = Kept.room
    built = network(1, ActivationOffload())
    inputs, target = random_batch(tiny(), geometry(tiny()), BATCH)
    loss = built(inputs, target)
    with patch.object(Kept, "room", noted):
        loss.backward()
    assert most == 2


def test_buffers_of_another_size_take_the_place_of_free_ones() -> None:
    buffers = HostBuffers()
    small = [buffers.take(100, page_locked=False) for _ in range(3)]
    for one in small:
        buffers.give(one)
    assert buffers.allocated_bytes == 300
    assert buffers.take(40, page_locked=False).numel() == 100
    assert buffers.take(500, page_locked=False).numel() == 500
    assert buffers.allocated_bytes == 100 + 500 + 100


class FakeDevice:
    """Streams and events that write down what is asked of them."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def Stream(self, _: Any) -> FakeDevice:  # noqa: N802 - torch's name
        return self

    def current_stream(self) -> FakeDevice:
        return self

    def stream(self, _: Any) -> FakeDevice:
        return self

    def __enter__(self) -> None:
        self.log.append("side stream:")

    def __exit__(self, *_: object) -> None: ...

    def wait_stream(self, _: Any) -> None:
        self.log.append("side waits for compute")

    def record_event(self) -> int:
        self.log.append("event")
        return len(self.log)

    def wait_event(self, _: Any) -> None:
        self.log.append("compute waits for copy")


def test_copies_run_on_their_own_stream_and_work_waits_for_them() -> None:
    """Each after what is queued, each with an event; compute waits once for each copy, both ways."""
    device = FakeDevice()
    built = network(2, ActivationOffload())
    inputs, target = random_batch(tiny(), geometry(tiny()), BATCH)
    made = activation_offload.Copies.__init__

    def on_fake(self: activation_offload.Copies, where: torch.device) -> None:
        made(self, where)
        self._streams, self._stream = device, device

    copy = ["side waits for compute", "side stream:", "event"]
    with patch.object(activation_offload.Copies, "__init__", on_fake):
        loss = built(inputs, target)
        assert device.log == [*copy, "compute waits for copy"] * 2
        device.log.clear()
        loss.backward()
    # The last segment's is fetched and waited for, then the one before it is fetched ahead.
    assert device.log == [*copy, "compute waits for copy", *copy, "compute waits for copy"]


def test_without_checkpointing_there_is_nothing_to_offload() -> None:
    model = tiny()
    with pytest.raises(VdsgenError, match="needs checkpointing"):
        build_engine({"pipeline": {"offload_activations": True}}, model, geometry(model), seed=0)
