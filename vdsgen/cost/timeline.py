"""What one pipeline stage holds, moment by moment, through one optimizer step.

The step is not the first of a run: optimizer states are there, and so is what the engine's slots keep of the
step before. Instructions are the engine's own (`instructions.py`). A moment is one layer of a forward,
of a recomputation or of a backward at its peak, or one other instruction. Files and lines are of
DeepSpeed 0.19.8, below deepspeed/runtime.

`StageTensors` (stage_tensors.py) says what each piece is and where the engine holds it; here is when. The
search asks `memory.peak_tensor_bytes` instead, which is the maximum of this in one formula.

Coarser than the truth: a layer's own gradients count from the end of its backward; without its graph
(under checkpointing) a forward's temporaries are unknown, and always less than the recomputation's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vdsgen.cost.gradients import GradientGrowth
from vdsgen.cost.instructions import Instruction, Name, instructions
from vdsgen.cost.schedule import buffers_in_flight
from vdsgen.cost.settings import Settings
from vdsgen.cost.stage_tensors import StageTensors
from vdsgen.cost.state_bytes import ModelStates
from vdsgen.spec.plan import PeakMoment

COMPONENTS = (
    "parameters",
    "gradients",
    "optimizer",
    "activations",
    "recomputation",
    "temporaries",
    "pipeline_buffers",
    "communication",
    "workspace",
)


class Moment(NamedTuple):
    """What is alive at one moment, in bytes on each GPU of the stage."""

    instruction: Name
    micro_batch: int | None
    """From 0; None at the end of the step."""
    layer: int | None
    """Of the whole model; None where no layer runs."""
    recomputing: bool
    """Whether the layer's forward runs once more, in backward."""
    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    """What micro-batches hold from their forward to their backward: inputs, and what layers saved or
    checkpoint segments put out."""
    recomputation_bytes: int
    """What the recomputed segment's layers saved."""
    temporaries_bytes: int
    """Of the running layer; in backward the gradients that flow, and a parameter's until it is added."""
    pipeline_buffers_bytes: int
    """Receive buffers, and inputs, targets and outputs that the engine's slots keep."""
    communication_bytes: int
    """Reduce buckets, and gathered parameters under ZeRO-3."""
    workspace_bytes: int
    """Of reduction and the optimizer step."""

    @property
    def total_bytes(self) -> int:
        return sum(self[4:])

    def components(self) -> dict[str, int]:
        """Bytes by the names in COMPONENTS."""
        return dict(zip(COMPONENTS, self[4:], strict=True))

    @property
    def largest_component(self) -> str:
        parts = self.components()
        return max(parts, key=lambda name: parts[name])

    def spec(self) -> PeakMoment:
        """As plans hold a stage's peak."""
        component = self.largest_component
        return PeakMoment(
            instruction=self.instruction,
            micro_batch=self.micro_batch,
            layer=self.layer,
            recomputing=self.recomputing,
            component=component,
            component_bytes=self.components()[component],
        )


class StageTimeline:
    """One stage's step."""

    def __init__(
        self,
        tensors: StageTensors,
        states: ModelStates,
        growth: GradientGrowth,
        settings: Settings,
        stage: int,
        first_layer: int,
    ) -> None:
        self._tensors = tensors
        self._states = states
        self._growth = growth
        self._settings = settings
        self._stage = stage
        self._first_layer = first_layer

    def moments(self, micro_batches: int | None = None) -> Iterator[Moment]:
        """The whole step, or that of an equal stage with fewer micro-batches."""
        settings = self._settings
        total = settings.gradient_accumulation_steps if micro_batches is None else micro_batches
        run = _Run(self, last_micro_batch=total - 1)
        stages, by_micro_batch = settings.pipeline_parallel_size, settings.zero_stage >= 2
        for instruction in instructions(self._stage, stages, total, reduces_each=by_micro_batch):
            yield from run.execute(instruction)

    def peak(self) -> Moment:
        """The first moment of those that hold most.

        Three micro-batches after a stage has as many in flight as it ever has, everything repeats.
        """
        steps = self._settings.gradient_accumulation_steps
        most = buffers_in_flight(self._stage, self._settings.pipeline_parallel_size, steps)
        return max(self.moments(min(steps, most + 3)), key=lambda moment: moment.total_bytes)


class _Run:
    """A step under way: what is alive, and what each instruction makes of it."""

    def __init__(self, timeline: StageTimeline, *, last_micro_batch: int) -> None:
        self.last_micro_batch = last_micro_batch
        self.tensors = timeline._tensors
        self.states = timeline._states
        self.growth = timeline._growth
        self.offloads = timeline._settings.offload_activations and bool(self.tensors.segments)
        self.first_layer = timeline._first_layer
        self.gathers = timeline._settings.zero_stage == 3
        self.kept = dict.fromkeys(range(self.tensors.slots), self.tensors.kept_bytes)
        """By slot: of micro-batches that are done."""
        self.received: dict[int, int] = {}
        """By micro-batch: what came and has not been sent back as a gradient."""
        self.stash: dict[int, int] = {}
        """By micro-batch: what its forward left, without what came."""
        self.gradients = self.growth.before_bytes
        self.bucket = self.gathered = 0
        self.backwards = 0

    def execute(self, instruction: Instruction) -> Iterator[Moment]:
        number = instruction.micro_batch
        match instruction.name:
            case "RecvActivation":
                assert number is not None
                self.received[number] = (
                    self.tensors.received_bytes
                )  # a clone of the buffer (pipe/engine.py:1142)
                yield self._moment(instruction)
            case "ForwardPass":
                yield from self._forward(instruction)
            case "BackwardPass":
                yield from self._backward(instruction)
            case "SendGrad":
                yield self._moment(instruction)
                assert number is not None
                del self.received[number]  # pipe/engine.py:1111
            case "ReduceGrads" if number is not None:
                yield self._moment(instruction, workspace=self.states.reduction_bytes)
                if number < self.last_micro_batch:
                    self.gradients = self.growth.between_bytes  # what was added is in it
            case "ReduceGrads":
                yield self._moment(instruction, workspace=self.states.reduction_bytes)
            case "OptimizerStep":
                yield self._moment(instruction, workspace=self.states.step_bytes)
                self.gradients = self.growth.before_bytes
            case _:
                yield self._moment(instruction)

    def _moment(
        self,
        instruction: Instruction,
        layer: int | None = None,
        *,
        recomputing: bool = False,
        recomputation: int = 0,
        temporaries: int = 0,
        communication: int = 0,
        workspace: int = 0,
    ) -> Moment:
        return Moment(
            instruction=instruction.name,
            micro_batch=instruction.micro_batch,
            layer=None if layer is None else self.first_layer + layer,
            recomputing=recomputing,
            parameters_bytes=self.states.parameters_bytes,
            gradients_bytes=self.gradients,
            optimizer_bytes=self.states.optimizer_bytes,
            activations_bytes=sum(self.stash.values()) + sum(self.received.values()),
            recomputation_bytes=recomputation,
            temporaries_bytes=temporaries,
            pipeline_buffers_bytes=self.tensors.always_bytes + sum(self.kept.values()),
            communication_bytes=communication,
            workspace_bytes=workspace,
        )

    def _forward(self, instruction: Instruction) -> Iterator[Moment]:
        """Each layer adds what it saves, or its segment's output; the slot's last output and its graph go
        when the new output takes their place (pipe/engine.py:751)."""
        number = instruction.micro_batch
        assert number is not None
        own, checkpointed = self.tensors.own, self.tensors.checkpointed
        plain_from = self.tensors.plain_from
        begins = {begin: place for place, (begin, _) in enumerate(self.tensors.segments)}
        begins[checkpointed] = len(self.tensors.segments)
        ends = {end - 1 for _, end in self.tensors.segments}
        if self.tensors.idle:
            ends.add(self.tensors.idle - 1)
        self.stash[number] = self.tensors.input_bytes - self.received.get(number, 0)
        self.stash[number] += self.tensors.borrowed_bytes
        packing = self.tensors.begins if self.tensors.packs else []
        unpacked = 0
        communication = self.states.communication_bytes if self.gathers else 0
        for index, layer in enumerate(own):
            if self.offloads and (place := begins.get(index, 0)) and self.tensors.segments[place - 1][0]:
                # The last segment's input is in host memory by now; the first one's is the stage's own.
                self.stash[number] -= self.tensors.hidden_bytes(self.tensors.segments[place - 1][0])
            temporaries = 0
            if index in packing or (packing and index == plain_from):
                self.stash[number] -= unpacked  # the last segment's input
                unpacked = self.tensors.hidden_bytes(index) if index else 0
            if index in packing:
                self.stash[number] += self.tensors.packed_bytes(index)
            if index >= plain_from:
                self.stash[number] += layer.held
                temporaries = layer.forward_transient
            elif index >= checkpointed:
                self.stash[number] += layer.selective_held
                temporaries = layer.selective_forward_transient
            else:
                self.stash[number] += layer.side + (layer.output if index in ends else 0)
            yield self._moment(instruction, index, temporaries=temporaries, communication=communication)
        self.stash[number] -= self.tensors.borrowed_bytes
        if self.offloads or packing:
            self.stash[number] = self.tensors.stash_bytes(offload=self.offloads)
            self.stash[number] -= self.received.get(number, 0)
        self.kept[number % self.tensors.slots] = 0

    def _backward(self, instruction: Instruction) -> Iterator[Moment]:
        number = instruction.micro_batch
        assert number is not None
        by_layer = self.growth.later_by_layer if self.backwards else self.growth.first_by_layer
        self.backwards += 1
        yield from self._plain_backward(instruction, by_layer)
        yield from self._selective_backward(instruction, by_layer)
        yield from self._checkpointed_backward(instruction, by_layer)
        self.gradients += sum(by_layer[: self.tensors.idle])  # ZeRO-2's, with the last to come
        del self.stash[number]
        if self.tensors.kept_bytes:  # the last stage's output, whose graph holds the rest
            self.received[number] = 0
            self.kept[number % self.tensors.slots] = self.tensors.kept_bytes
        elif number in self.received:
            self.received[number] = 2 * self.tensors.received_bytes  # with its gradient
        yield self._moment(instruction, communication=self._reducing)
        self.bucket = 0

    def _plain_backward(self, instruction: Instruction, by_layer: Sequence[int]) -> Iterator[Moment]:
        """A layer's backward frees what the layer saved, and its input."""
        assert instruction.micro_batch is not None
        own = self.tensors.own
        arriving, side = self.tensors.arriving_bytes, 0
        for index in range(len(own) - 1, self.tensors.plain_from - 1, -1):
            yield self._moment(
                instruction,
                index,
                temporaries=max(0, own[index].backward_transient - arriving) + side,
                communication=self._reducing,
            )
            self.stash[instruction.micro_batch] -= own[index].saved + (own[index - 1].output if index else 0)
            arriving, side = 0, self.tensors.side_bytes
            self._add_gradients(index, by_layer)

    def _selective_backward(self, instruction: Instruction, by_layer: Sequence[int]) -> Iterator[Moment]:
        """After the plain layers, those that have kept their products: one is recomputed beside these, and
        goes backward."""
        assert instruction.micro_batch is not None
        own, plain_from = self.tensors.own, self.tensors.plain_from
        is_last = plain_from == len(own)
        arriving, side = (self.tensors.arriving_bytes, 0) if is_last else (0, self.tensors.side_bytes)
        for index in range(plain_from - 1, self.tensors.checkpointed - 1, -1):
            layer = own[index]
            self.gathered = self.growth.segment_bytes(index, index + 1)
            unpacked = self.tensors.hidden_bytes(index) if self.tensors.packs else 0
            need = max(0, layer.selective_peak - arriving) + unpacked
            again = min(need, max(0, layer.selective_recomputed))
            yield self._moment(
                instruction,
                index,
                recomputing=True,
                recomputation=again,
                temporaries=need - again + side,
                communication=self._reducing,
            )
            self.stash[instruction.micro_batch] -= layer.selective_saved + (
                self.tensors.packed_bytes(index) if index else 0
            )
            arriving, side = 0, self.tensors.side_bytes
            self._add_gradients(index, by_layer)
        self.gathered = 0

    def _checkpointed_backward(self, instruction: Instruction, by_layer: Sequence[int]) -> Iterator[Moment]:
        """After those, segments from the last to the first: the whole one is recomputed, then its
        layers go backward; then its input goes. Offloaded inputs come one segment ahead."""
        number = instruction.micro_batch
        assert number is not None
        own, segments = self.tensors.own, self.tensors.segments
        is_last = self.tensors.checkpointed == len(own)
        arriving, side = (self.tensors.arriving_bytes, 0) if is_last else (0, self.tensors.side_bytes)
        if self.offloads:
            self.stash[number] += self.tensors.hidden_bytes(segments[-1][0])
        for place in reversed(range(len(segments))):
            begin, end = segments[place]
            segment = range(begin, end)
            gradient = own[end - 1].output - arriving
            if self.tensors.packs:
                self.stash[number] += self.tensors.hidden_bytes(begin)
            if self.offloads and place:
                self.stash[number] += self.tensors.hidden_bytes(segments[place - 1][0])
            self.gathered = self.growth.segment_bytes(begin, end)
            held = 0
            for index in segment:
                held += own[index].held
                yield self._moment(
                    instruction,
                    index,
                    recomputing=True,
                    recomputation=held,
                    temporaries=own[index].forward_transient + gradient + side,
                    communication=self._reducing,
                )
            for index in reversed(segment):
                held -= own[index].output + own[index].side
                yield self._moment(
                    instruction,
                    index,
                    recomputation=held,
                    temporaries=max(0, own[index].backward_transient - arriving) + side,
                    communication=self._reducing,
                )
                held -= own[index].saved
                arriving = 0
                self._add_gradients(index, by_layer)
            side = self.tensors.side_bytes
            if begin:
                self.stash[number] -= self.tensors.packed_bytes(begin)
            if self.tensors.packs:
                self.stash[number] -= self.tensors.hidden_bytes(begin)
        self.gathered = 0

    def _add_gradients(self, index: int, by_layer: Sequence[int]) -> None:
        """A layer is through."""
        self.gradients += by_layer[index]
        self.bucket = self.growth.bucket_bytes

    @property
    def _reducing(self) -> int:
        """Buckets and gathers."""
        return self.growth.always_bytes + self.gathered + self.bucket
