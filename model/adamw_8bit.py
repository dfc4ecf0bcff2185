"""AdamW with its moments in 8 bits: block-wise dynamic quantisation (arXiv 2110.02861), on any device.

A block of elements is divided by its largest magnitude, and each quotient is stored as the number of the
nearest of 256 values, which lie closer together the smaller they are: seven decades of size have half as many
values each as the one above. The step itself is AdamW's in fp32. bitsandbytes has the same as CUDA kernels;
these are torch's own operators, a piece of the tensor at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vdsgen.spec.quantized_moments import BLOCK_ELEMENTS, PIECE_ELEMENTS, SMALLEST_ELEMENTS

CODES = ("exp_avg_codes", "exp_avg_sq_codes")
SCALES = ("exp_avg_scales", "exp_avg_sq_scales")
PLAIN = ("exp_avg", "exp_avg_sq")
ZERO = {True: 127, False: 0}
"""The code of zero, with and without values below it."""


@functools.lru_cache(maxsize=8)
def code_values(signed: bool, device: torch.device) -> Tensor:
    """(256,) fp32, rising: 0, 1, and for each of seven decades the middles of as many equal parts of
    [0.1, 1] as the bits that its exponent leaves can number."""
    values = [0.0, 1.0]
    for decade in range(7):
        parts = 2 ** (decade + (0 if signed else 1))
        edges = torch.linspace(0.1, 1, parts + 1, dtype=torch.float64)
        middles = ((edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)).tolist()
        values += middles + ([-value for value in middles] if signed else [])
    assert len(values) == 2**8, len(values)
    return torch.tensor(sorted(values), dtype=torch.float32, device=device)


@functools.lru_cache(maxsize=8)
def code_boundaries(signed: bool, device: torch.device) -> Tensor:
    """(255,) fp32: halfway between neighbours."""
    values = code_values(signed, device)
    return (values[:-1] + values[1:]) / 2


@functools.lru_cache(maxsize=8)
def first_codes(signed: bool, device: torch.device) -> Tensor:
    """(65536,) uint8: by the upper half of a number's bits, the code of the least number that has it.

    Those that share an upper half differ by less than neighbouring boundaries do: each is between at most
    two of them, so that one comparison more gives its code, where a search would make eight."""
    upper = torch.arange(2**16, dtype=torch.int64)
    # Of negative numbers the least is the one with all lower bits set.
    bits = (upper << 16) | torch.where(upper >= 2**15, 2**16 - 1, 0)
    least = torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32).view(torch.float32)
    codes = torch.bucketize(least.nan_to_num(), code_boundaries(signed, torch.device("cpu")))
    return codes.to(device, torch.uint8)


def codes_of(quotients: Tensor, *, signed: bool) -> Tensor:
    """uint8 numbers of the values that are nearest to numbers in [-1, 1]."""
    upper = (quotients.reshape(-1).view(torch.int32) >> 16).bitwise_and_(2**16 - 1)
    codes = first_codes(signed, quotients.device).index_select(0, upper).int()
    del upper
    above = torch.nn.functional.pad(code_boundaries(signed, quotients.device), (0, 1), value=torch.inf)
    codes += quotients.reshape(-1) > above.index_select(0, codes)
    return codes.to(torch.uint8)


def quantised(x: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """fp32 (n,) -> codes uint8 (n,), scales fp32 (blocks,)."""
    blocks = _in_blocks(x)
    scales = blocks.abs().amax(dim=1)
    quotients = blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    return codes_of(quotients, signed=signed)[: x.numel()], scales


def dequantised(codes: Tensor, scales: Tensor, *, signed: bool) -> Tensor:
    """fp32 (n,)"""
    values = code_values(signed, codes.device).index_select(0, codes.int())
    blocks = _in_blocks(values)
    return (blocks * scales[:, None]).view(-1)[: codes.numel()]


def moment_of(state: Mapping[str, Any], moment: int, first: int, length: int) -> Tensor:
    """fp32 (length,): elements from `first` of one moment (0 or 1) of an AdamW's state, in 8 bits or not."""
    if CODES[moment] not in state:
        whole: Tensor = state[PLAIN[moment]]
        return whole.view(-1)[first : first + length]
    begin = first // BLOCK_ELEMENTS
    end = -(-(first + length) // BLOCK_ELEMENTS)
    codes = state[CODES[moment]][begin * BLOCK_ELEMENTS : end * BLOCK_ELEMENTS]
    values = dequantised(codes, state[SCALES[moment]][begin:end], signed=moment == 0)
    skipped = first - begin * BLOCK_ELEMENTS
    return values[skipped : skipped + length]


def _in_blocks(x: Tensor) -> Tensor:
    """(n,) -> (blocks, BLOCK_ELEMENTS), the last one filled up with zeros."""
    missing = -x.numel() % BLOCK_ELEMENTS
    if missing:
        x = torch.nn.functional.pad(x, (0, missing))
    return x.view(-1, BLOCK_ELEMENTS)


class AdamW8bit(torch.optim.Optimizer):
    """AdamW (arXiv 1711.05101) of fp32 parameters, which are stepped as flat tensors."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None, "the engine has no closure"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if not state:
                        _begin(state, parameter)
                    state["step"] += 1
                    _step(parameter, state, group)

    @torch.no_grad()
    def set_moments(self, parameter: Tensor, first: Tensor, second: Tensor, steps: int) -> None:
        """Goes on from fp32 moments (n,) of so many steps, quantised in this parameter's own blocks."""
        state = self.state[parameter]
        _begin(state, parameter)
        state["step"].fill_(steps)
        for moment, name, codes, scales, signed in zip(
            (first, second), PLAIN, CODES, SCALES, (True, False), strict=True
        ):
            if name in state:
                state[name].copy_(moment)
            else:
                for rows, blocks in _pieces(moment.numel()):
                    state[codes][rows], state[scales][blocks] = quantised(moment[rows], signed=signed)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """torch's own casts every state to its parameter's dtype: codes stay what they are."""
        stripped = {
            index: {key: value for key, value in state.items() if key not in CODES}
            for index, state in state_dict["state"].items()
        }
        super().load_state_dict({**state_dict, "state": stripped})
        saved_ids = [index for group in state_dict["param_groups"] for index in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, parameter in zip(saved_ids, parameters, strict=True):
            for key in CODES:
                if key in state_dict["state"].get(index, {}):
                    codes = state_dict["state"][index][key]
                    self.state[parameter][key] = codes.to(parameter.device, torch.uint8, copy=True)


def _begin(state: dict[str, Any], parameter: Tensor) -> None:
    elements, device = parameter.numel(), parameter.device
    state["step"] = torch.zeros((), dtype=torch.float32)
    if elements < SMALLEST_ELEMENTS:
        for name in PLAIN:
            state[name] = torch.zeros(elements, dtype=torch.float32, device=device)
        return
    for codes, scales, signed in zip(CODES, SCALES, (True, False), strict=True):
        state[codes] = torch.full((elements,), ZERO[signed], dtype=torch.uint8, device=device)
        blocks = -(-elements // BLOCK_ELEMENTS)
        state[scales] = torch.zeros(blocks, dtype=torch.float32, device=device)


def _step(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    weights, gradients = parameter.detach().view(-1), parameter.grad.detach().reshape(-1)  # type: ignore[union-attr]
    step = float(state["step"])
    if PLAIN[0] in state:
        _adamw(weights, gradients, state[PLAIN[0]], state[PLAIN[1]], step, group)
        return
    for rows, blocks in _pieces(weights.numel()):
        first = dequantised(state[CODES[0]][rows], state[SCALES[0]][blocks], signed=True)
        second = dequantised(state[CODES[1]][rows], state[SCALES[1]][blocks], signed=False)
        _adamw(weights[rows], gradients[rows], first, second, step, group)
        for moment, codes, scales, signed in zip((first, second), CODES, SCALES, (True, False), strict=True):
            state[codes][rows], state[scales][blocks] = quantised(moment, signed=signed)


def _adamw(
    weights: Tensor, gradients: Tensor, first: Tensor, second: Tensor, step: float, group: dict[str, Any]
) -> None:
    """One step of fp32 tensors, in their places."""
    (beta1, beta2), rate = group["betas"], float(group["lr"])
    gradient = gradients.float()
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    weights.mul_(1 - rate * group["weight_decay"])
    denominator = second.sqrt().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
    weights.addcdiv_(first, denominator, value=-rate / (1 - beta1**step))


def _pieces(elements: int) -> Iterator[tuple[slice, slice]]:
    """(elements, blocks) of each piece."""
    for first in range(0, elements, PIECE_ELEMENTS):
        last = min(elements, first + PIECE_ELEMENTS)
        yield slice(first, last), slice(first // BLOCK_ELEMENTS, -(-last // BLOCK_ELEMENTS))
