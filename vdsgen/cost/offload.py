"""What is kept outside the GPU costs: traffic over the host link and to flash, and AdamW on the processor.
Files are of DeepSpeed 0.19.8, below deepspeed/runtime.

What ZeRO moves does not overlap with the GPU's work here. Its copies run in the order of the compute stream
(zero/stage_1_and_2.py:2243 says why); those from memory that is not page-locked, as of a sub-group cast to
half precision on its way up (zero/stage3.py:2858), hold the process as well. Parameters that ZeRO-3 fetches
ahead may hide: a step with them is then faster than this. On flash, states are read before a sub-group's
update and written after it, one after the other (plans leave `pipeline_read` and `pipeline_write` off;
gradients are written while backward goes on, and counted as if not).

Checkpointed activations go down while their segment runs forward, and come up while the segment after it is
recomputed and runs backward (model/activation_offload.py): what is longer than that is waited for, and the
last segment's way up as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from vdsgen.cost import engine_defaults as defaults
from vdsgen.cost.averages import AVERAGE
from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.lab import Link, Pool

HOST_MEMORY_GB_PER_SECOND = 80.0
"""Four channels of DDR4-3200 carry 102.4 GB/s (JEDEC JESD79-4: 25.6 a channel); streams sustain about four
fifths. Servers have more channels: say so with `host_memory_bandwidth_gb_per_second`."""
HOST_LINK = Link(bandwidth_gb_per_second=24.0, latency_microseconds=5.7)
"""PCIe 4.0 x16 as in the catalogue, where a pool names no other."""
CPU_ADAM_BYTES = 28
"""AdamW reads gradient, parameter and two moments in fp32 and writes the last three: torch's fused kernel, as
rendered, and DeepSpeedCPUAdam alike (csrc/adam/cpu_adam_impl.cpp)."""
SWAPPED_STATE_BYTES = 12
"""ZeRO-3 reads master weights and moments of a sub-group from flash and writes them back
(swap_tensor/partitioned_optimizer_swapper.py:75, 121)."""
SWAPPED_GRADIENT_BYTES = 4
"""It writes fp32 gradients after the last micro-batch and reads them for the update (:165, :217)."""
GB = 1e9


class Host(NamedTuple):
    """One rank's share of its host, while all ranks of the job on the node use it."""

    link_bytes_per_second: float
    memory_bytes_per_second: float
    flash_read_bytes_per_second: float = inf
    flash_write_bytes_per_second: float = inf

    @classmethod
    def of(cls, pool: Pool, ranks: int | None = None) -> Host:
        """Of a pool whose names are resolved, shared by so many ranks of a node: by default by all."""
        ranks = ranks or pool.gpus_per_node
        calibration = pool.calibration
        assert calibration is None or isinstance(calibration, Calibration)
        assert not isinstance(pool.host_link, str), "links are resolved before costs are asked for"
        link = (pool.host_link or HOST_LINK).bandwidth_gb_per_second
        memory = pool.host_memory_bandwidth_gb_per_second or HOST_MEMORY_GB_PER_SECOND
        if calibration is not None:
            if calibration.host_link_bandwidth_gb_per_second is not None:
                link = middle(calibration.host_link_bandwidth_gb_per_second)
            if calibration.host_memory_bandwidth_gb_per_second is not None:
                memory = middle(calibration.host_memory_bandwidth_gb_per_second)
        share = memory * GB / ranks
        flash = (inf, inf)
        if pool.nvme is not None:
            rates = (pool.nvme.read_gb_per_second, pool.nvme.write_gb_per_second)
            flash = (rates[0] * GB / ranks, rates[1] * GB / ranks)
        return cls(min(link * GB / pool.gpus_per_host_link, share), share, *flash)


def offload_traffic_bytes(settings: Settings, parameters: int, trainable_parameters: int) -> float:
    """Bytes that cross one rank's host link in a step, both directions added up.

    - ZeRO-1 and 2 with an offloaded optimizer: the own share of the gradients goes down in fp32 after the
      last micro-batch (zero/stage_1_and_2.py:1888), and the updated parameters come up (:3095). Where ZeRO-2
      adds up in the model's dtype, several micro-batches do so in host memory by way of the GPU: the share
      goes down after each, and up before each but the first (:1809, :2166). Sums in another dtype stay on the
      GPU (:2145), and so do all of ZeRO-1, which reduces once a step.
    - ZeRO-3: the gradient's share goes up and down in every micro-batch (zero/stage3.py:2023-2037), and down
      in fp32 after the last (:1455).
    - ZeRO-3 with offloaded parameters: the own share goes up for every gather
      (zero/partition_parameters.py:1360), twice a micro-batch; the update then stays in host memory.
    - An average of the weights in host memory: the rank's fp32 weights go down when it is brought up to date
      (model/ema.py). Without ZeRO those are all; BF16_Optimizer's are a share, and are overrated.
    """
    ranks = settings.sequence_data_parallel_size
    micro_batches = settings.gradient_accumulation_steps
    own = trainable_parameters / ranks
    total = 0.0
    if settings.offload_optimizer != "none":
        accumulated = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
        if settings.zero_stage == 3:
            total += own * accumulated * 2 * micro_batches
        elif settings.zero_stage == 2 and accumulated == settings.element_bytes and micro_batches > 1:
            total += own * settings.element_bytes * (2 * micro_batches - 1)
        total += own * 4
        if settings.offload_parameters == "none":
            total += own * settings.element_bytes
    if settings.ema == "cpu" and settings.offload_optimizer == "none":
        averaged = own if settings.zero_stage else trainable_parameters
        total += averaged * AVERAGE / settings.ema_every_steps
    if settings.offload_parameters != "none":
        total += parameters / ranks * settings.element_bytes * 2 * micro_batches
    return total


def flash_traffic_bytes(
    settings: Settings, parameters: int, trainable_parameters: int
) -> tuple[float, float]:
    """Bytes that one rank reads from flash in a step, and writes: nothing below ZeRO-3, which takes NVMe for
    host memory."""
    if settings.zero_stage < 3:
        return 0.0, 0.0
    ranks = settings.sequence_data_parallel_size
    read = written = 0.0
    if settings.offload_optimizer == "nvme":
        read = written = trainable_parameters / ranks * (SWAPPED_STATE_BYTES + SWAPPED_GRADIENT_BYTES)
    if settings.offload_parameters == "nvme":
        far = max(0.0, parameters / ranks - defaults.NVME_MAX_PARAMETERS_IN_HOST) * settings.element_bytes
        read += far * 2 * settings.gradient_accumulation_steps
        written += far
    return read, written


def offload_seconds(
    settings: Settings, parameters: int, trainable_parameters: int, host: Host
) -> tuple[float, float]:
    """(traffic, AdamW on the processor) of one step; the second replaces the GPU's optimizer step."""
    traffic = offload_traffic_bytes(settings, parameters, trainable_parameters) / host.link_bytes_per_second
    read, written = flash_traffic_bytes(settings, parameters, trainable_parameters)
    traffic += read / host.flash_read_bytes_per_second + written / host.flash_write_bytes_per_second
    if settings.offload_optimizer == "none":
        return traffic, 0.0
    own = trainable_parameters / settings.sequence_data_parallel_size
    update = CPU_ADAM_BYTES + (4 + settings.element_bytes if settings.element_bytes != 4 else 0)
    return traffic, own * update / host.memory_bytes_per_second


class SegmentWork(NamedTuple):
    """One checkpoint segment of a stage, for one micro-batch."""

    input_bytes: float
    """Of its input, what is offloaded."""
    forward_seconds: float
    backward_seconds: float
    """Recomputation included."""


def activation_waiting_seconds(segments: Sequence[SegmentWork], host: Host, *, overlaps: bool) -> float:
    """What a micro-batch waits for its checkpointed activations. `overlaps`: copies run beside the GPU's
    work; on a processor they are made at once."""
    waiting, covered_up = 0.0, 0.0
    for segment in reversed(segments):
        one_way = segment.input_bytes / host.link_bytes_per_second
        covered_down = segment.forward_seconds if overlaps else 0.0
        waiting += max(0.0, one_way - covered_down) + max(0.0, one_way - covered_up)
        covered_up = segment.backward_seconds if overlaps else 0.0
    return waiting
