"""The peak of a diffusion model's tensors on one GPU that holds it whole."""

from __future__ import annotations

from collections.abc import Sequence

from vdsgen.cost.activations import stage_activations
from vdsgen.cost.engine_defaults import STAGE3_MAX_LIVE_PARAMETERS
from vdsgen.cost.layer_bytes import LayerBytes, layer_bytes
from vdsgen.cost.memory import MemoryModel
from vdsgen.cost.settings import Settings
from vdsgen.published.diffusion_case import DiffusionCase

STREAMED_BLOCKS = 2
"""Blocks of half precision weights on the GPU: one at work, and the next one arriving."""

ENGINE_LIVE_PARAMETERS = 1_000_000_000
"""DeepSpeed's default of stage3_max_live_parameters (runtime/zero/config.py)."""


def tensor_bytes(case: DiffusionCase) -> float:
    """What `torch.cuda.max_memory_allocated` would say.

    Raises ValueError for settings that the engine refuses.
    """
    settings, trainer = case.settings, case.trainer
    if trainer is None:
        count = len(case.profile.layers)
        planned = MemoryModel(case.profile, case.geometry).tensor_bytes(settings, 0, 0, count)
        return planned + _gathered_by_default(case)
    trained = case.profile.trainable_parameters
    layers = layer_bytes(case.profile, case.geometry, settings.micro_batch_size, settings.dtype)
    running = stage_activations(layers, settings, 0, 0, len(layers))
    # Autocast's copies of weights live until the end of forward; those that a layer saves are among its own.
    copies = trainer.copies * trained if settings.activation_checkpoint_interval else 0.0
    forward = running.stash_bytes + copies
    types = [case.profile.layer_types[name] for name in case.profile.layers]
    gradients = [trainer.gradients * layer.trainable_parameters for layer in types]
    backward = running.stash_bytes + _growing_backward(layers, gradients, settings)
    if settings.gradient_accumulation_steps > 1:
        backward = max(backward, running.stash_bytes + running.backward_bytes + sum(gradients))
    step = sum(gradients) + trainer.step * trained
    return rest_bytes(case) + max(running.buffer_bytes + max(forward, backward), step)


def _gathered_by_default(case: DiffusionCase) -> int:
    """ZeRO-3 gathers up to 1e9 parameters by default; plans bound that (vdsgen/cost/engine_defaults.py)."""
    if case.settings.zero_stage < 3 or case.settings.data_parallel_size == 1:
        return 0
    live = min(case.profile.parameters, ENGINE_LIVE_PARAMETERS)
    bounded = min(case.profile.parameters, STAGE3_MAX_LIVE_PARAMETERS)
    return case.settings.element_bytes * (live - bounded)


def _growing_backward(layers: Sequence[LayerBytes], gradients: Sequence[float], settings: Settings) -> float:
    """The most that one backward needs beyond the stash where gradients, none between steps, come as
    activations go: each segment's own need, what those before it left, less what they freed."""
    interval = settings.activation_checkpoint_interval
    length = interval or 1
    peak = grown = freed = 0.0
    for first in range((len(layers) - 1) // length * length, -1, -length):
        if not any(layer.trains for layer in layers[: first + length]):
            break  # no backward comes to the layers before the first that trains
        segment = [layer._replace(trains=True) for layer in layers[first : first + length]]
        if interval:
            alone = settings._replace(activation_checkpoint_interval=len(segment))
            need = stage_activations(segment, alone, 0, 0, len(segment)).backward_bytes
        else:
            need = segment[-1].backward_transient
        peak = max(peak, need + grown - freed)
        grown += sum(gradients[first : first + length])
        freed += layers[first - 1].output if first else 0
        freed += 0 if interval else segment[-1].letting_input_go().saved
    return max(peak, grown - freed)


def rest_bytes(case: DiffusionCase) -> float:
    """Weights and optimizer states: what there is between steps, gradients set to none."""
    trainer = case.trainer
    assert trainer is not None, "DeepSpeed's states are not asked for at rest"
    trained = case.profile.trainable_parameters
    frozen = case.profile.parameters - trained
    held = trainer.frozen * frozen + (trainer.weights + trainer.states) * trained
    if trainer.streamed:
        held += 2 * STREAMED_BLOCKS * max(layer.parameters for layer in case.profile.layer_types.values())
    return held
