"""What optimizer states and parameters kept in host memory cost: traffic over the host link, and AdamW on the
processor. Files are of DeepSpeed 0.19.8, below deepspeed/runtime.

Nothing of it overlaps with the GPU's work here. The engine copies on streams of its own, so a step may be
faster than this; with pageable memory (`pin_memory: false`) it is slower. NVMe is taken for host memory.
"""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.lab import Link, Pool

HOST_MEMORY_GB_PER_SECOND = 80.0
"""Four channels of DDR4-3200 carry 102.4 GB/s (JEDEC JESD79-4: 25.6 a channel); streams sustain about four
fifths. Servers have more channels: say so with `host_memory_bandwidth_gb_per_second`."""
HOST_LINK = Link(bandwidth_gb_per_second=24.0, latency_microseconds=5.7)
"""PCIe 4.0 x16 as in the catalogue, where a pool names no other."""
CPU_ADAM_BYTES = 28
"""DeepSpeedCPUAdam reads gradient, parameter and two moments in fp32 and writes the last three
(csrc/adam/cpu_adam_impl.cpp)."""
GB = 1e9


class Host(NamedTuple):
    """One rank's share of its host, while all ranks of the node use it."""

    link_bytes_per_second: float
    memory_bytes_per_second: float

    @classmethod
    def of(cls, pool: Pool) -> Host:
        """Of a pool whose names are resolved."""
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
        share = memory * GB / pool.gpus_per_node
        return cls(min(link * GB / pool.gpus_per_host_link, share), share)


def offload_traffic_bytes(settings: Settings, parameters: int, trainable_parameters: int) -> float:
    """Bytes that cross one rank's host link in a step, both directions added up.

    - ZeRO-1 and 2 with an offloaded optimizer: with several micro-batches, each adds up in host memory by way
      of the GPU: the own share of the gradients goes down after each, and up before each but the first
      (zero/stage_1_and_2.py:1809); then once more down in fp32 (:1888), and the updated half precision
      parameters up.
    - ZeRO-3: the gradient's share goes up and down in every micro-batch (zero/stage3.py, partition_grads).
    - ZeRO-3 with offloaded parameters: the own share goes up for every gather
      (zero/partition_parameters.py:1360), twice a micro-batch; the update then stays in host memory.
    """
    ranks = settings.data_parallel_size
    micro_batches = settings.gradient_accumulation_steps
    own = trainable_parameters / ranks
    total = 0.0
    if settings.offload_optimizer != "none":
        accumulated = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
        if settings.zero_stage == 3:
            total += own * accumulated * 2 * micro_batches
        elif micro_batches > 1:
            total += own * settings.element_bytes * (2 * micro_batches - 1)
        total += own * 4
        if settings.offload_parameters == "none":
            total += own * settings.element_bytes
    if settings.offload_parameters != "none":
        total += parameters / ranks * settings.element_bytes * 2 * micro_batches
    return total


def offload_seconds(
    settings: Settings, parameters: int, trainable_parameters: int, host: Host
) -> tuple[float, float]:
    """(traffic, AdamW on the processor) of one step; the second replaces the GPU's optimizer step."""
    traffic = offload_traffic_bytes(settings, parameters, trainable_parameters) / host.link_bytes_per_second
    if settings.offload_optimizer == "none":
        return traffic, 0.0
    own = trainable_parameters / settings.data_parallel_size
    update = CPU_ADAM_BYTES + (4 + settings.element_bytes if settings.element_bytes != 4 else 0)
    return traffic, own * update / host.memory_bytes_per_second
