"""Bytes that ZeRO's offload keeps in one rank's host memory, and in its files on flash.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime. The optimizer is torch's AdamW, whose fused
kernel runs on the processor and needs no temporaries; DeepSpeedCPUAdam holds the same moments.

Ignored: page-locked buffers are rounded up to a power of two by torch's allocator of pinned memory, up to
twice the bytes of the largest ones; and what the kernel caches of files.
"""

from __future__ import annotations

from vdsgen.cost import engine_defaults as defaults

MASTER_AND_MOMENTS = 12
"""Bytes a parameter of the share: fp32 master weight and Adam's two fp32 moments."""
MASTER_GRADIENT = 4
"""Bytes a parameter of the share: the fp32 gradient that the optimizer on the host reads, never freed."""


def host_bytes_of_zero_1_and_2(share: int, largest: int, width: int, kept_gradients: int) -> int:
    """ZeRO-1 and 2 with the optimizer on the host, or asked for on NVMe: both take this path
    (zero/stage_1_and_2.py:220).

    Elements of the share and of the stage's largest parameter, `width` bytes each in the model's dtype;
    `kept_gradients` elements wait on the host between micro-batches. Master weights, moments and gradients
    (:564, :941), a copy of the updated share in the model's dtype on its way back (:567), and one gradient
    (:653).
    """
    states = MASTER_AND_MOMENTS + MASTER_GRADIENT + width
    return states * share + width * (largest + kept_gradients)


def host_bytes_of_zero_3(share: int, sub_group: int, accumulation_width: int, *, swapped: bool) -> int:
    """ZeRO-3 with the optimizer on the host, or on NVMe (`swapped`); elements of the share and of its largest
    sub-group, and bytes of an accumulated gradient's element.

    The accumulated gradients of the share stay in host memory either way (zero/stage3.py:791). On the host:
    master weights, moments and their gradients too (:1158, :1339). On NVMe: a pool of buffers, each for one
    state of the largest sub-group (:862, swap_tensor/optimizer_utils.py:180); sub-groups too small to swap
    (under 1 MiB) are taken to be swapped.
    """
    gradients = accumulation_width * share
    if swapped:
        return gradients + 4 * defaults.NVME_OPTIMIZER_BUFFERS * sub_group
    return gradients + (MASTER_AND_MOMENTS + MASTER_GRADIENT) * share


def host_bytes_of_parameters(share: int, sub_group: int, width: int, *, swapped: bool) -> int:
    """ZeRO-3's share of the parameters on the host (zero/stage3.py:929), or on NVMe (`swapped`).

    With NVMe as many elements stay as `max_in_cpu` says (:922); the others go through a pool of buffers
    (swap_tensor/partitioned_param_swapper.py:104) and, after the step, one for a whole sub-group (:1011).
    """
    if not swapped:
        return width * share
    kept = min(share, defaults.NVME_MAX_PARAMETERS_IN_HOST)
    pool = defaults.NVME_PARAMETER_BUFFERS * defaults.NVME_PARAMETER_BUFFER_ELEMENTS
    return width * (kept + pool + (sub_group if kept < share else 0))


def nvme_bytes_of_optimizer(share: int) -> int:
    """ZeRO-3's files: master weights and moments (swap_tensor/optimizer_utils.py:48, 494), and the fp32
    gradients of a step (:113). Each is rounded up to 1 KiB, which is left out."""
    return (MASTER_AND_MOMENTS + MASTER_GRADIENT) * share


def nvme_bytes_of_parameters(share: int, width: int) -> int:
    """ZeRO-3's files of parameters that do not stay in host memory (zero/stage3.py:922)."""
    return width * max(0, share - defaults.NVME_MAX_PARAMETERS_IN_HOST)
