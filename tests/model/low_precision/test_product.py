"""The product in 8 bits: by hand, by torch's own instruction, and on tensors without contents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from vdsgen.model.low_precision import product
from vdsgen.model.low_precision.product import (
    QUANTIZED_MM,
    emulated_fp8_product,
    fp8_product,
    int8_product,
    quantized_mm,
)
from vdsgen.model.low_precision.quantised import Quantised, quantised
from vdsgen.profile.ledger import Ledger
from vdsgen.profile.live_bytes import LiveBytes
from vdsgen.spec.linear_precision import (
    OPERATORS,
    EightBit,
    Format,
    hidden_terms,
    takes,
    traffic_terms,
)

PAIRS: list[tuple[Format, Format]] = [("int8", "int8"), ("e4m3", "e4m3"), ("e5m2", "e4m3")]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}


def operands(
    dtype: torch.dtype = torch.float32, rows: int = 20, columns: int = 32, depth: int = 48
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    left, right = (
        torch.randn(rows, depth, generator=generator),
        torch.randn(depth, columns, generator=generator),
    )
    return left.to(dtype), right.to(dtype), torch.randn(columns, generator=generator).to(dtype)


@pytest.mark.parametrize("formats", PAIRS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_is_the_product_of_what_the_8_bits_say(formats: tuple[Format, Format], dtype: torch.dtype) -> None:
    left, right, bias = operands(dtype)
    found = quantized_mm(left, right, bias, *formats)
    one, other = quantised(left, formats[0]), quantised(right.t(), formats[1])
    by_hand = torch.zeros(20, 32, dtype=torch.float64)
    for row in range(20):
        for column in range(32):
            terms = one.values[row].double() * other.values[column].double()
            by_hand[row, column] = terms.sum() * one.scales[row].double() * other.scales[column].double()
    by_hand += bias.double()
    assert found.dtype == dtype
    assert (found.double() - by_hand).abs().max() <= ROUNDING[dtype] * by_hand.abs().max()


@pytest.mark.parametrize("formats", PAIRS)
def test_is_near_the_exact_product(formats: tuple[Format, Format]) -> None:
    left, right, _ = operands(rows=200, columns=160, depth=320)
    exact = left.double() @ right.double()
    error = (quantized_mm(left, right, None, *formats).double() - exact).norm() / exact.norm()
    assert error < {"int8": 0.015, "e4m3": 0.045, "e5m2": 0.07}[formats[0]]


@pytest.mark.parametrize("formats", PAIRS)
def test_an_outlier_spoils_its_own_row_alone(formats: tuple[Format, Format]) -> None:
    left, right, _ = operands()
    spoiled = left.clone()
    spoiled[4, 7] = 1e4
    found, plain = (quantized_mm(x, right, None, *formats) for x in (spoiled, left))
    kept = [row for row in range(20) if row != 4]
    assert torch.equal(found[kept], plain[kept])


@pytest.mark.parametrize("left_format", ["e4m3", "e5m2"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_gpus_instruction_gives_what_is_emulated(left_format: Format, with_bias: bool) -> None:
    """torch._scaled_mm on a processor takes the same arguments."""
    left, right, bias = operands(torch.bfloat16, depth=45)  # padded to 48
    one, other = quantised(left, left_format), quantised(right.t(), "e4m3")
    own = bias if with_bias else None
    instruction = fp8_product(one, other, own, torch.bfloat16)
    emulated = emulated_fp8_product(one, other, own, torch.bfloat16)
    assert instruction.dtype == emulated.dtype == torch.bfloat16
    exact = emulated_fp8_product(one, other, own, torch.float32)
    assert (instruction.float() - exact).abs().max() <= 2.0**-8 * exact.abs().max()
    assert torch.allclose(instruction.float(), emulated.float(), rtol=2.0**-7, atol=2.0**-7)


@pytest.mark.parametrize("rows", [1, 17, 400])
@pytest.mark.parametrize("left_format", ["e4m3", "e5m2"])
def test_a_gpu_would_take_the_arguments(rows: int, left_format: Format) -> None:
    """torch checks sizes, layouts and scales of tensors without contents as it does on a GPU."""
    with FakeTensorMode():
        values = torch.empty(rows, 45, device="cuda").to(
            quantised(torch.ones(1, 1), left_format).values.dtype
        )
        left = Quantised(values, torch.empty(rows, 1, device="cuda"))
        right = Quantised(
            torch.empty(32, 45, device="cuda").to(torch.float8_e4m3fn), torch.empty(32, 1, device="cuda")
        )
        bias = torch.empty(32, device="cuda", dtype=torch.bfloat16)
        assert fp8_product(left, right, bias, torch.bfloat16).shape == (rows, 32)


def test_tensors_without_contents_get_shapes_and_flops() -> None:
    for mode in (torch.device("meta"), FakeTensorMode()):
        with mode:
            left, right = torch.empty(20, 48, dtype=torch.bfloat16), torch.empty(48, 32, dtype=torch.bfloat16)
            with FlopCounterMode(display=False) as counter:
                found = quantized_mm(left, right, None, "e4m3", "e4m3")
        assert found.shape == (20, 32) and found.dtype == torch.bfloat16
        assert counter.get_total_flops() == 2 * 20 * 48 * 32


def test_torch_finds_nothing_wrong_with_the_operator() -> None:
    left, right, bias = operands()
    for test in ("test_schema", "test_faketensor"):
        torch.library.opcheck(QUANTIZED_MM.default, (left, right, bias, "e4m3", "e4m3"), test_utils=test)


HOW = {"int8": int8_product, "fp8": fp8_product, "fp8, emulated": emulated_fp8_product}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("sizes", [(4000, 64, 64), (4000, 256, 64), (4000, 64, 256), (64, 256, 1024)])
def test_the_books_know_what_a_product_holds_and_moves(
    how: str, transposed: bool, sizes: tuple[int, int, int]
) -> None:
    """What a processor copies inside its kernels, and a GPU does not, is not seen here either."""
    rows, columns, depth = sizes
    form: Format = "int8" if how == "int8" else "e4m3"
    emulated_in = 4 if "emulated" in how else None
    left, right, _ = operands(torch.bfloat16, rows, columns, depth)
    if transposed:
        left = left.t().contiguous().t()
    turned = right.t()
    with LiveBytes() as held, Ledger([left, right]) as ledger:
        result = HOW[how](quantised(left, form), quantised(turned, form), None, torch.bfloat16)
    planned = max(0, *(terms.at(*sizes) for terms in hidden_terms(form, 2, emulated_in)))
    scales = 4 * 16 * (rows + columns)  # maxima, reciprocals and exponents besides
    assert planned <= held.peak_bytes - result.nbytes <= planned + scales
    # Of a product that it knows, which int8's is not, the ledger counts no traffic.
    own = (rows + columns) * depth + 4 * rows * columns if how == "int8" else 0
    moved = traffic_terms(form, 2, emulated_in).at(*sizes)
    assert moved <= ledger.entry().traffic_bytes - own <= moved + 2 * scales


def test_layers_of_odd_sizes_are_left_alone() -> None:
    assert takes(64, 32) and not takes(64, 24) and not takes(40, 32)


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what computes: no view, no empty tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = ("aten.empty", "aten.t.", "aten.view", "aten.slice", "aten.detach")
        self.counted += not str(func).startswith(views)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "form"), [("fp8", "e4m3"), ("int8", "int8")])
def test_the_host_starts_as_many_operators_as_plans_count(
    monkeypatch: pytest.MonkeyPatch, kind: EightBit, form: Format
) -> None:
    monkeypatch.setattr(product, "has_fp8", lambda *_: True)
    left, right, bias = torch.ones(64, 32), torch.ones(32, 48), torch.ones(48)
    half = (left.bfloat16(), right.bfloat16(), bias.bfloat16())
    with Operators() as operators:
        product._compute(*half, form, form)
    assert operators.counted == OPERATORS[kind]
