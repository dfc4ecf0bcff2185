"""Activations of one pipeline stage: what each micro-batch in flight holds, and the peaks of forward and
backward. `timeline.py` tells the same story moment by moment; this is its maximum, in one pass over layers.

The engine is DeepSpeed's PipelineEngine with one backward from all of a stage's outputs
(model/corrections.py, `backward_pass`), which recomputes segments with DeepSpeed's non-reentrant function;
or a sequential module in one process, with torch's (model/pipeline.py, `run_segments`). Files and lines
are of DeepSpeed 0.19.8, below deepspeed/runtime.

A stage hands on its hidden state and the side tensors that all later layers share (modulation, text
context). Layers' costs come from the profile: `saved` beyond inputs and outputs, `output`, `side`, and
the peaks of temporaries in forward and in backward.

A stage that checkpoints may leave out its last layers (`Settings.stage_plain_layers`): their backward comes
first, so that what they hold is free before anything is recomputed. Those before them may keep their products
(`Settings.stage_selective_layers`), each a segment of its own; their backward comes next.

With `offload_activations` each segment's hidden state goes to host memory while the segment runs forward, and
comes back one segment ahead of backward (model/activation_offload.py).

Ignored: timesteps and text embeddings as the loader delivers them (0.5 MB a sample for 128 tokens of
width 1024), and rotary tables, which all layers share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.backward_peak import backward_peaks
from vdsgen.cost.forward_peak import forward_peak
from vdsgen.cost.gradients import GradientGrowth
from vdsgen.cost.layer_bytes import LayerBytes
from vdsgen.cost.schedule import buffers_in_flight
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_tensors import stage_tensors


class StageActivations(NamedTuple):
    """Bytes of activations on one stage."""

    in_flight: int
    """Micro-batches between their forward and their backward."""
    stash_bytes: int
    """What each of them holds."""
    forward_bytes: int
    """What the forward of the last of them needs at its peak, its own stash included."""
    backward_bytes: int
    """What the backward of one of them needs beyond its stash, at its peak: a recomputed segment and
    temporaries."""
    first_backward_bytes: int
    """The same for a step's first backward, with the gradients that have appeared by then."""
    buffer_bytes: int
    """Held all the time micro-batches run: communication buffers, and inputs, targets and outputs that the
    engine keeps."""
    idle_bytes: int
    """What of these is still held when gradients are reduced and the optimizer steps."""
    host_bytes: int
    """In host memory, of all micro-batches in flight: buffers that are never freed."""

    @property
    def peak_bytes(self) -> int:
        """The most beside full gradients, which are there once a pipeline is full and runs on."""
        return self.buffer_bytes + max(
            (self.in_flight - 1) * self.stash_bytes + self.forward_bytes,
            self.in_flight * self.stash_bytes + self.backward_bytes,
        )


def stage_activations(
    layers: Sequence[LayerBytes],
    settings: Settings,
    stage: int,
    start: int,
    stop: int,
    *,
    growth: GradientGrowth | None = None,
    without_recomputation: bool = False,
) -> StageActivations:
    """Activations of the stage that holds the layers start to stop - 1 of `layers`; with `growth`, what
    backward adds to gradients and buckets is counted with its needs. `without_recomputation`, what segments
    need in backward is left out. Takes O(stop - start).
    """
    tensors = stage_tensors(layers, settings, stage, start, stop)
    offload = settings.offload_activations and bool(tensors.segments)
    stash = tensors.stash_bytes(offload=offload)
    if growth is None:
        nothing = (0,) * len(tensors.own)
        growth = GradientGrowth(0, nothing, 0, nothing, 0, 0, 0)
    backward, first = backward_peaks(tensors, growth, offload=offload, to_the_end=not without_recomputation)
    forward = forward_peak(tensors, offload=offload)
    # When the last segment is through, all gradients are there, and the gradient of what was received; on the
    # last stage the output too, until its slot is used again.
    after = tensors.kept_bytes or 2 * tensors.received_bytes
    first = max(first, sum(growth.first_growth) + after - stash)
    backward = max(backward, sum(growth.later_growth) + after - stash)
    before = tensors.kept_bytes if tensors.slots > 1 else 0
    in_flight = buffers_in_flight(
        stage, settings.pipeline_parallel_size, settings.gradient_accumulation_steps
    )
    return StageActivations(
        in_flight=in_flight,
        stash_bytes=stash,
        forward_bytes=forward + tensors.kept_bytes,  # the slot's own last output goes when the new one comes
        backward_bytes=backward,
        first_backward_bytes=first,
        buffer_bytes=tensors.always_bytes + before,
        idle_bytes=tensors.always_bytes + before + tensors.kept_bytes,
        host_bytes=in_flight * tensors.offloaded_bytes if offload else 0,
    )
