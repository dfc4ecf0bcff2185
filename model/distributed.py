"""Joining the process group, on whatever accelerator this rank has."""

from __future__ import annotations

import os


def init_distributed() -> None:
    """Initialises DeepSpeed's communication with the accelerator's own backend (nccl, gloo, ...).

    On a processor DeepSpeed would first compile a shared-memory collective (comm/torch.py:207), which
    takes a C++ compiler, half a minute, and a lock file that a killed start leaves behind. Only
    `inference_all_reduce` uses it, which training never calls, so the operator is marked as not
    available and a first start needs no compiler at all.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    # The engine would do it, but there are collectives before it is built.
    get_accelerator().set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if get_accelerator().device_name() == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=get_accelerator().communication_backend_name(), verbose=False)
