"""The peak of a diffusion model's tensors on one GPU that holds it whole."""

from __future__ import annotations

from vdsgen.cost.activations import layer_bytes, stage_activations
from vdsgen.cost.memory import MemoryModel
from vdsgen.published.diffusion_case import DiffusionCase


def tensor_bytes(case: DiffusionCase) -> float:
    """What `torch.cuda.max_memory_allocated` would say.

    Raises ValueError for settings that the engine refuses.
    """
    if case.trainer is None:
        count = len(case.profile.layers)
        return MemoryModel(case.profile, case.geometry).tensor_bytes(case.settings, 0, 0, count)
    trainer = case.trainer
    held = rest_bytes(case)
    types = [case.profile.layer_types[name] for name in case.profile.layers]
    growth = [int(trainer.gradients * layer.trainable_parameters) for layer in types]
    gradients = sum(growth)
    copies = trainer.copies * case.profile.trainable_parameters
    layers = layer_bytes(case.profile, case.geometry, case.settings.micro_batch_size, case.settings.dtype)
    running = stage_activations(layers, case.settings, 0, 0, len(layers), growth)
    # Autocast's copies of weights live until the end of forward; those that a layer saves are among its own.
    forward: float = running.buffer_bytes + running.forward_bytes
    if case.settings.activation_checkpoint_interval:
        forward += copies
    # Gradients are set to none between steps, and come as activations go.
    beside = running.first_backward_bytes
    if case.settings.gradient_accumulation_steps > 1:
        beside = max(beside, running.backward_bytes + gradients)
    backward = running.buffer_bytes + running.stash_bytes + beside
    step = gradients + trainer.step * case.profile.trainable_parameters
    return held + max(forward, backward, step)


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


STREAMED_BLOCKS = 2
"""Blocks of half precision weights on the GPU: one at work, and the next one arriving."""
