"""The most that a micro-batch's backward through a stage needs beyond what the micro-batch holds.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.gradients import GradientGrowth
from vdsgen.cost.layer_bytes import LayerBytes
from vdsgen.cost.stage_tensors import StageTensors


def backward_peaks(
    tensors: StageTensors, growth: GradientGrowth, *, offload: bool, to_the_end: bool
) -> tuple[int, int]:
    """The most that a later backward and the first need beyond the stash, with what they have added by then:
    first of the plain layers, then (`to_the_end`) of what is recomputed."""
    added = Added(growth.first_growth, growth.later_growth)
    state = _plain_backward(tensors, added, _Backward(0, 0, 0, 0, 0, tensors.arriving_bytes, 0))
    if to_the_end:
        state = _selective_backward(tensors, added, growth, state)
    if tensors.segments and to_the_end:
        state = _checkpointed_backward(tensors, added, growth, state, offload=offload)
    return state.peak, state.first


class Added(NamedTuple):
    """What backward adds to gradients and buckets by layer: in the step's first, and in later ones."""

    first: Sequence[int]
    later: Sequence[int]


class _Backward(NamedTuple):
    """How far a micro-batch's backward has come, from the last layer on."""

    peak: int
    """The most beyond the stash, in a later backward."""
    first: int
    """The same in a step's first."""
    freed: int
    """Of the stash."""
    grown: int
    """Gradients and buckets, in a later backward."""
    grown_first: int
    arriving: int
    """Of the gradient of what is next, how much lies in the receive buffers."""
    side: int
    """Gradients of the side tensors, which add up while layers go by. Of the last layer they lie in the
    receive buffers."""


def _plain_backward(tensors: StageTensors, added: Added, state: _Backward) -> _Backward:
    """Temporaries of each layer's backward, less what the layers after it have freed by then."""
    own = tensors.own
    peak, first, freed, grown, grown_first, arriving, side = state
    for index in range(len(own) - 1, tensors.plain_from - 1, -1):
        layer = own[index]
        need = max(0, layer.backward_transient - arriving) + side - freed
        peak, first = max(peak, need + grown), max(first, need + grown_first)
        freed += layer.saved + (own[index - 1].output if index else 0)
        grown += added.later[index]
        grown_first += added.first[index]
        arriving, side = 0, tensors.side_bytes
    return _Backward(peak, first, freed, grown, grown_first, arriving, side)


def _selective_backward(
    tensors: StageTensors, added: Added, growth: GradientGrowth, state: _Backward
) -> _Backward:
    """Recomputation and backward of each layer that has kept its products, less what the layers after it have
    freed by then."""
    own = tensors.own
    peak, first, freed, grown, grown_first, arriving, side = state
    for index in range(tensors.plain_from - 1, tensors.checkpointed - 1, -1):
        layer = own[index]
        need = max(0, layer.selective_peak - arriving) + side - freed
        need += tensors.hidden_bytes(index) if tensors.packs else 0
        if growth.gathered_by_layer:
            need += growth.segment_bytes(index, index + 1)
        peak, first = max(peak, need + grown), max(first, need + grown_first)
        freed += layer.selective_saved + (tensors.packed_bytes(index) if index else 0)
        grown += added.later[index]
        grown_first += added.first[index]
        arriving, side = 0, tensors.side_bytes
    return _Backward(peak, first, freed, grown, grown_first, arriving, side)


def _checkpointed_backward(
    tensors: StageTensors, added: Added, growth: GradientGrowth, state: _Backward, *, offload: bool
) -> _Backward:
    """The most that one segment's recomputation and backward need, less what later layers have freed.

    Segments hold no activations but their inputs. With `offload` these come back: the segment's own, and
    that of the next to be recomputed.
    """
    own = tensors.own
    peak, first, freed, grown, grown_first, arriving, side = state
    need = need_first = 0
    before = None
    for place in reversed(range(len(tensors.segments))):
        begin, end = tensors.segments[place]
        part = Added(added.first[begin:end], added.later[begin:end])
        segment = (own[begin:end], part, arriving, side)
        if segment != before:  # most are equal
            need, need_first = _segment_bytes(*segment)
            before = segment
        beside = (growth.segment_bytes(begin, end) if growth.gathered_by_layer else 0) - freed
        if offload or tensors.packs:
            beside += tensors.hidden_bytes(begin)
        if offload:
            beside += tensors.hidden_bytes(tensors.segments[place - 1][0]) if place else 0
        peak = max(peak, need + beside + grown)
        first = max(first, need_first + beside + grown_first)
        grown += sum(part.later)
        grown_first += sum(part.first)
        arriving, side = 0, tensors.side_bytes
        if begin and not offload:
            freed += tensors.packed_bytes(begin)  # this segment's input
    return _Backward(peak, first, freed, grown, grown_first, arriving, side)


def _segment_bytes(segment: Sequence[LayerBytes], added: Added, arriving: int, side: int) -> tuple[int, int]:
    """Recomputation runs the whole segment and keeps what its layers save
    (activation_checkpointing/checkpointing.py:883-955), beside the gradient of its output. In a later
    backward and in the first, with what the segment's own layers add."""
    gradient = segment[-1].output - arriving
    peak = first = held = 0
    grown, grown_first = sum(added.later), sum(added.first)
    last = len(segment) - 1
    for index, layer in enumerate(segment):
        recomputing = held + layer.held + layer.forward_transient + gradient + side
        transient = layer.backward_transient
        if index == last:
            transient = max(0, transient - arriving)
        grown -= added.later[index]
        grown_first -= added.first[index]
        backward = held + layer.saved + transient + side
        peak = max(peak, recomputing, backward + grown)
        first = max(first, recomputing, backward + grown_first)
        held += layer.held
    return peak, first
