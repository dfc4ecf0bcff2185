"""Initial weights: a pure function of the seed and the layer's index, in every layout of ranks.

A layer is built on whichever rank owns its stage, and under `deepspeed.zero.Init` each submodule is
partitioned as soon as its own `__init__` returns. So every module here fills its parameters inside
its own `__init__`, from the generator of its pipeline layer, drawing in fp32 on the CPU whatever the
parameter's dtype or device: 1 x 1, 4 x 1, bf16 under ZeRO-3 and a GPU all start from the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def layer_generator(seed: int, layer_index: int) -> torch.Generator:
    """The source of one pipeline layer's initial weights."""
    digest = hashlib.sha256(f"vdsgen layer {layer_index} of seed {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@torch.no_grad()
def fill_normal(
    parameter: Tensor,
    std: float,
    generator: torch.Generator,
    whole: Sequence[int] | None = None,
    share: Callable[[Tensor], Tensor] = lambda drawn: drawn,
) -> None:
    """Draws `parameter` from N(0, std^2); does nothing on the meta device, where nothing is stored.

    Where it is a share of a tensor of shape `whole`, all of that is drawn, so that shares fit together and
    the generator goes on as if one rank held everything.
    """
    if parameter.is_meta:
        return
    # Not torch.randn: zero.Init replaces it by one that casts to the model's dtype
    # (deepspeed/runtime/zero/partition_parameters.py:646-672), which would round twice.
    shape = tuple(parameter.shape if whole is None else whole)
    parameter.copy_(share(torch.normal(0.0, std, shape, generator=generator, device="cpu")))


class Linear(nn.Linear):
    """`nn.Linear` with Xavier-normal weights and a zero bias; `zero=True` starts at zero altogether."""

    def __init__(
        self, in_features: int, out_features: int, generator: torch.Generator, *, zero: bool = False
    ) -> None:
        super().__init__(in_features, out_features)
        with torch.no_grad():
            self.bias.zero_()
            if zero:
                self.weight.zero_()
        if not zero:
            fill_normal(self.weight, math.sqrt(2 / (in_features + out_features)), generator)

    def reset_parameters(self) -> None:
        """Nothing: `nn.Linear.__init__` calls this, and would draw from the process's own generator."""
