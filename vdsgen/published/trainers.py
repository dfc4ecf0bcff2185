"""Bytes a parameter on the GPU of trainers that keep a whole diffusion model on it, each with its source.

DeepSpeed's are in vdsgen/cost/model_states.py.
"""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.published.reasons import CannotExpressError
from vdsgen.published.row import Row


class Trainer(NamedTuple):
    """Bytes a parameter."""

    frozen: float
    """Weights that do not train."""
    weights: float
    """Weights that do."""
    gradients: float
    states: float
    step: float
    """Temporaries of the optimizer step, when no activations are alive."""
    copies: float
    """Half precision copies of trained weights that autocast caches until forward's end."""
    streamed: bool
    """Frozen weights are on the host, and a block's at a time on the GPU."""


ADAMW_BYTES = 8
"""Two fp32 moments."""
ADAMW_8BIT_BYTES = 2
"""Two moments of a byte each (bitsandbytes, optim/adamw.py, AdamW8bit; scales left out)."""
ADAMW_STEP_BYTES = 4
"""torch.optim.AdamW without `fused` goes over all parameters at once and holds the roots of the second
moments (torch/optim/adamw.py, _multi_tensor_adamw, _foreach_sqrt)."""


def trainer_of(row: Row, adapters: bool) -> Trainer:
    """By the row's precision, optimizer and offload. Raises CannotExpressError for what has no recipe."""
    precision, optimizer, offload = row.precision.lower(), row.optimizer.lower(), row.offload.lower()
    if "mixed" not in precision and precision not in ("bf16", "fp16"):
        raise CannotExpressError(f"precision {row.precision!r}" if precision else "no precision")
    mixed = "mixed" in precision
    trained = 4 if mixed else 2
    streamed = _streams(row, offload, adapters)
    on_host = "cpuoffload" in optimizer or "optimizer" in offload
    return Trainer(
        frozen=0 if streamed else 2,
        weights=trained,
        # torchao's CPUOffloadOptimizer moves each gradient as it comes (torchao/optim/cpu_offload.py).
        gradients=0 if "grad" in offload else trained,
        states=0 if on_host else _moments(row, optimizer, mixed),
        step=0 if on_host or "8bit" in optimizer else ADAMW_STEP_BYTES * trained / 4,
        copies=2 if mixed and not adapters else 0,
        streamed=streamed,
    )


def _moments(row: Row, optimizer: str, mixed: bool) -> float:
    if "8bit" in optimizer or "8-bit" in optimizer:
        return ADAMW_8BIT_BYTES
    if "adam" in optimizer:
        return ADAMW_BYTES if mixed else ADAMW_BYTES / 2  # in the weights' dtype
    raise CannotExpressError(f"optimizer {row.optimizer!r}" if optimizer else "no optimizer")


def _streams(row: Row, offload: str, adapters: bool) -> bool:
    if offload in ("", "none") or "optimizer" in offload:
        return False
    if offload == "block weights streamed from cpu (ramtorch 100%)" and adapters:
        return True
    raise CannotExpressError(f"offload: {row.offload}")
