"""The plan: what the planner answers, and what `plan.json` holds."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from vdsgen.spec.base import HostName, NonNegativeFloat, NonNegativeInt, PositiveInt, Spec, SpecWithOptions
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.explanations import Explanations
from vdsgen.spec.lab import Pool
from vdsgen.spec.linear_precision import LinearPrecision

Offload = Literal["none", "cpu", "nvme"]
EmaPlace = Literal["none", "accelerator", "cpu"]
"""Where ZeRO keeps something that is not in use."""
GradientCompression = Literal["none", "int8"]
"""How data-parallel ranks exchange gradients where the trainer, not the engine, compresses them."""


ActivationCompression = Literal["none", "int8", "fp8"]
"""What checkpointed activations wait for backward in; none: as they are."""


class Inputs(Spec):
    """What the plan was made from: hashes of the canonical JSON, and the pool."""

    experiment_sha256: str
    lab_sha256: str
    profile_sha256: str
    pool: Pool
    """The pool as the lab file gives it: with train.yaml, what `vdsgen check` plans again from."""


class PlannedNode(Spec):
    """A node that a plan uses, and which of its GPUs."""

    node: NonNegativeInt
    """Its place among the pool's nodes, from 0 in the order of the lab file."""
    host: HostName | None = None
    gpus: PositiveInt
    """GPUs that it has, used or not."""
    devices: tuple[NonNegativeInt, ...]
    """Device numbers in the order of the ranks on them."""


class PlannedModel(Spec):
    name: str
    parameters: PositiveInt
    trainable_parameters: PositiveInt
    layers: PositiveInt
    """Pipeline layers: embedding, blocks and the final projection."""


class Parallel(Spec):
    world_size: PositiveInt
    pipeline_parallel_size: PositiveInt
    data_parallel_size: PositiveInt
    tensor_parallel_size: PositiveInt = 1
    sequence_parallel_size: PositiveInt = 1


class Batch(Spec):
    micro_batch_size: PositiveInt
    gradient_accumulation_steps: PositiveInt
    global_batch_size: PositiveInt


class Zero(Spec):
    stage: NonNegativeInt
    offload_optimizer: Offload = "none"
    offload_parameters: Offload = "none"
    reduce_bucket_elements: PositiveInt
    allgather_bucket_elements: PositiveInt
    quantized_weights: bool = False
    """ZeRO++: stage 3 gathers parameters in int8."""
    quantized_gradients: bool = False
    """ZeRO++: stage 3 reduces gradients in int4."""
    hierarchical_partition_size: PositiveInt = 1
    """ZeRO++: ranks that hold a secondary copy of the parameters together; 1 for none."""


class ActivationCheckpointing(Spec):
    interval: NonNegativeInt
    """Blocks a segment; 0 for none."""
    stage_intervals: tuple[NonNegativeInt, ...] = ()
    """Of each pipeline stage, where they differ; `interval` is then the first stage's."""
    plain_layers: tuple[NonNegativeInt, ...] = ()
    """How many of each stage's last layers are not checkpointed where the others are; empty where none."""
    selective_layers: tuple[NonNegativeInt, ...] = ()
    """How many of each stage's layers, the last before the plain ones, keep the outputs of matrix products
    and attention where they are recomputed, each a segment of its own; empty where none."""
    offload: bool = False
    """Whether what checkpointing keeps waits for backward in host memory."""
    compression: ActivationCompression = "none"


class Communication(Spec):
    """How data-parallel ranks exchange gradients."""

    dtype: Dtype | None = None
    """None: the model's dtype."""
    gradient_compression: GradientCompression = "none"


class WeightAverage(Spec):
    """The average of the weights (EMA) that is kept beside them."""

    device: EmaPlace = "none"
    every_steps: PositiveInt = 1


class Precision(SpecWithOptions):
    written_where_set: ClassVar[frozenset[str]] = frozenset({"moments", "linear"})

    dtype: Dtype
    gradient_accumulation_dtype: Dtype
    initial_loss_scale: PositiveInt | None = None
    loss_scale_window: PositiveInt | None = None
    moments: Literal["fp32", "int8"] = "fp32"
    """What AdamW's are kept in."""
    linear: LinearPrecision = "exact"
    """What linear layers of the model's blocks multiply in; exact: `dtype`."""


class StageMemory(Spec):
    """Bytes on each GPU of one stage. `peak_bytes` is what must fit: the reserve and the larger of the
    peak while activations are held and the peak of the optimizer step."""

    parameters_bytes: NonNegativeInt
    gradients_bytes: NonNegativeInt
    optimizer_bytes: NonNegativeInt
    activations_bytes: NonNegativeInt
    workspace_bytes: NonNegativeInt
    communication_bytes: NonNegativeInt
    reserve_bytes: NonNegativeInt
    peak_bytes: NonNegativeInt


class PeakMoment(Spec):
    """When in a step a stage holds most, and what weighs most then. Names are those of the engine's
    instructions (`BackwardPass`, `OptimizerStep`, ...)."""

    instruction: str
    micro_batch: NonNegativeInt | None = None
    """From 0; null at the end of the step."""
    layer: NonNegativeInt | None = None
    """The layer that runs."""
    recomputing: bool = False
    """Whether its forward runs once more, in backward."""
    component: str
    """The largest, the reserve aside."""
    component_bytes: NonNegativeInt


class Stage(Spec):
    index: NonNegativeInt
    layers: tuple[NonNegativeInt, NonNegativeInt]
    """First layer, and one past the last."""
    memory: StageMemory
    capacity_bytes: NonNegativeInt
    forward_seconds: NonNegativeFloat
    """One micro-batch."""
    backward_seconds: NonNegativeFloat
    """One micro-batch, recomputation included."""
    host_bytes: NonNegativeInt = 0
    """What offload keeps of each rank in host memory."""
    nvme_bytes: NonNegativeInt = 0
    """What offload keeps of each rank on its node's flash."""
    peak: PeakMoment | None = None
    """Null in plans made before this was known."""

    def measured_bytes(self, *, on_processor: bool) -> int:
        """The peak as a run measures it, without the reserve. Ranks on processors have what is offloaded in
        the same memory as all else."""
        tensors = self.memory.peak_bytes - self.memory.reserve_bytes
        return tensors + self.host_bytes if on_processor else tensors


class TimeSplit(Spec):
    """Where the seconds of one step go; they add up to it."""

    compute_seconds: NonNegativeFloat
    """Forward and backward of the average stage."""
    recompute_seconds: NonNegativeFloat
    bubble_seconds: NonNegativeFloat
    transfer_seconds: NonNegativeFloat
    """Activations and their gradients between stages."""
    reduction_seconds: NonNegativeFloat
    gather_seconds: NonNegativeFloat
    optimizer_seconds: NonNegativeFloat
    offload_seconds: NonNegativeFloat
    """Between GPU and host memory."""
    data_seconds: NonNegativeFloat
    """Waiting for clips; 0 where the pool's calibration has no figure for it."""
    overhead_seconds: NonNegativeFloat = 0.0
    """Of every step, where an ablation measured it."""
    tensor_seconds: NonNegativeFloat = 0.0
    sequence_seconds: NonNegativeFloat = 0.0
    """Between ranks that share blocks."""


class DatasetPass(Spec):
    """One pass over the clips, at the predicted speed."""

    clips: PositiveInt
    seconds: NonNegativeFloat
    price: NonNegativeFloat | None = None
    """In the lab's currency; null where a GPU in use has no price."""


class Predicted(Spec):
    step_seconds: NonNegativeFloat
    samples_per_second: NonNegativeFloat
    bubble_fraction: NonNegativeFloat
    communication_fraction: NonNegativeFloat
    model_flops_utilization: NonNegativeFloat
    split: TimeSplit | None = None
    """None: made by a version that did not split."""
    price_per_hour: NonNegativeFloat | None = None
    """Of all GPUs in use, in the lab's currency; null where one of them has no price."""
    dataset: DatasetPass | None = None
    """Null where the experiment does not say how many clips there are (`data.clips`)."""


class PlannedSaving(SpecWithOptions):
    """What checkpoints take, and what saving and failures cost a run. Null: the lab does not say."""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"copied_bytes_by_stage"})

    every_steps: PositiveInt
    checkpoint_bytes: PositiveInt
    """Of all ranks' tensors."""
    copied_bytes_by_stage: tuple[NonNegativeInt, ...] = ()
    """What the rank that saves most keeps of it in host memory; empty where training waits for writing."""
    write_seconds: NonNegativeFloat | None = None
    blocking_seconds: NonNegativeFloat | None = None
    """In which a save holds training up."""
    between_failures_seconds: NonNegativeFloat | None = None
    """On the average, of the whole job."""
    best_every_steps: PositiveInt | None = None
    """What costs least."""
    saving_fraction: NonNegativeFloat | None = None
    """Of the run's time without failures, what is spent waiting for saves."""
    lost_seconds_per_failure: NonNegativeFloat | None = None
    """Steps that are trained again, and the restart."""
    overhead_fraction: NonNegativeFloat | None = None
    """What saving and failures add to the time that steps take."""
    best_overhead_fraction: NonNegativeFloat | None = None


class Rejected(Spec):
    """A family of candidates that lost, and the one of them that came nearest."""

    reason: str
    """`out_of_memory`, `slower`, or the id of the rule that forbids it."""
    count: PositiveInt
    detail: str
    """One sentence for people."""
    nearest: dict[str, Any]


class Search(Spec):
    candidates: NonNegativeInt
    feasible: NonNegativeInt
    timed: NonNegativeInt = 0
    """Partitions that were run through the pipeline's schedule; rules, memory and bounds decided the rest."""
    rejected: tuple[Rejected, ...]


class Plan(SpecWithOptions):
    """`plan.json`"""

    written_where_set: ClassVar[frozenset[str]] = frozenset({"ema", "saving"})

    schema_version: Literal[1] = 1
    generator: str
    inputs: Inputs
    model: PlannedModel
    pool: str
    nodes: tuple[PlannedNode, ...] = ()
    """Which GPUs the ranks have, where not all nodes are alike or not all GPUs free: ranks fill the nodes in
    this order. Empty: the pool's nodes in their order, with their first GPUs."""
    parallel: Parallel
    batch: Batch
    zero: Zero
    activation_checkpointing: ActivationCheckpointing
    precision: Precision
    communication: Communication = Communication()
    ema: WeightAverage = WeightAverage()
    stages: tuple[Stage, ...] = Field(min_length=1)
    predicted: Predicted
    saving: PlannedSaving | None = None
    """Null where the lab says nothing of it, and training waits for checkpoints to be written."""
    reasons: tuple[str, ...]
    """Why this plan won, one sentence each."""
    search: Search
    explanations: Explanations | None = None
    """Null in plans made before there were any, and in runners-up."""
