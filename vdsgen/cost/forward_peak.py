"""The most that a micro-batch holds while a stage's layers run forward."""

from __future__ import annotations

from vdsgen.cost.stage_tensors import StageTensors


def forward_peak(tensors: StageTensors, *, offload: bool) -> int:
    """The most that a micro-batch holds while its layers run one after the other; those that are recomputed
    whole save nothing."""
    own, checkpointed = tensors.own, tensors.checkpointed
    peak = held = tensors.input_bytes + tensors.borrowed_bytes
    if tensors.packs:
        peak, held = _packing_forward(tensors)
        checkpointed = tensors.plain_from
    elif offload:
        peak, held = _offloading_forward(tensors)
    else:
        held += sum([own[end - 1].output for _, end in tensors.segments]) + tensors.idle_output_bytes
        held += sum([layer.side for layer in own[:checkpointed]])
        peak = held
    for layer in own[checkpointed : tensors.plain_from]:
        held += layer.selective_held
        peak = max(peak, held + layer.selective_forward_transient)
    for layer in own[tensors.plain_from :]:
        held += layer.held
        peak = max(peak, held + layer.forward_transient)
    return peak


def _packing_forward(tensors: StageTensors) -> tuple[int, int]:
    """The same where inputs are packed: an input is there beside what it was packed into until its segment's
    end, and the stage's own until the whole forward is through."""
    own = tensors.own
    peak = held = tensors.input_bytes + tensors.borrowed_bytes + _idle_side_bytes(tensors)
    selective = [(index, index + 1) for index in range(tensors.checkpointed, tensors.plain_from)]
    for begin, end in (*tensors.segments, *selective):
        held += tensors.packed_bytes(begin) + sum([layer.side for layer in own[begin:end]])
        arrived = tensors.hidden_bytes(begin) if begin else 0
        transient = 0
        if begin >= tensors.checkpointed:
            held += own[begin].selective_saved
            transient = own[begin].selective_forward_transient
        peak = max(peak, held + arrived + own[end - 1].output + transient)
    return peak, held + (own[tensors.plain_from - 1].output if tensors.plain_from else 0)


def _offloading_forward(tensors: StageTensors) -> tuple[int, int]:
    """The most that a micro-batch holds while its segments run, and what it holds after the last: a segment's
    input goes only when its copy is down, at the segment's end, and the stage's own input when the whole
    forward is through."""
    own = tensors.own
    peak = held = tensors.input_bytes + _idle_side_bytes(tensors)
    for begin, end in tensors.segments:
        held += sum([layer.side for layer in own[begin:end]])
        arrived = tensors.hidden_bytes(begin) if begin else 0  # the first one is in `input_bytes`
        peak = max(peak, held + arrived + own[end - 1].output)
    return peak, held + own[tensors.checkpointed - 1].output


def _idle_side_bytes(tensors: StageTensors) -> int:
    return sum([layer.side for layer in tensors.own[: tensors.idle]])
