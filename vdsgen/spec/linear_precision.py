"""Linear layers in 8 bits: which they are, and the memory and traffic of their operands, which the trainer's
books and the cost functions share.

A product is (rows x depth) times (depth x columns): `rows` are tokens, of a gradient by the weight its
outputs. Every row of the left operand and every column of the right one has a scale of its own. What each
figure counts is what model/low_precision/product.py does, operator by operator.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

LinearPrecision = Literal["exact", "int8", "fp8"]
EightBit = Literal["int8", "fp8"]
"""Of `LinearPrecision`, what computes in 8 bits."""
Format = Literal["int8", "e4m3", "e5m2"]
"""Of one operand."""

SIZE_MULTIPLE = 16
"""Of a layer's inputs and outputs: what 8-bit matrix instructions take (aten/src/ATen/native/cuda/Blas.cpp,
_scaled_mm)."""


class Formats(NamedTuple):
    """Of the operands of a layer's three products."""

    forward: Format
    """Activations and weights."""
    gradient: Format
    """Of outputs."""
    weight_gradient: bool
    """Whether the product that gives the weight's gradient is in 8 bits too."""


FORMATS: dict[EightBit, Formats] = {
    "fp8": Formats("e4m3", "e4m3", weight_gradient=True),
    "int8": Formats("int8", "int8", weight_gradient=False),
}
"""fp8 by arXiv 2209.05433, which has gradients in e5m2 for its range: with a scale for every row e4m3 has
enough, and its third bit makes them better (docs/low_precision.md). int8 by arXiv 2304.13013 (SwitchBack),
which keeps the weight's gradient in the model's dtype: its sum runs over all tokens, which int32 may not
hold."""


OPERATORS: dict[EightBit, int] = {"fp8": 25, "int8": 26}
"""That the host starts for one product with a bias: for each operand a dozen, and the product's own. A model
of many small products waits for them: on an H200 the 1.5 B one was twice as slow in fp8 as in bf16
(docs/gpu.md)."""


def takes(outputs: int, inputs: int) -> bool:
    """Whether a linear layer of these sizes is computed in 8 bits."""
    return outputs % SIZE_MULTIPLE == 0 and inputs % SIZE_MULTIPLE == 0


class Terms(NamedTuple):
    """Bytes as factors of a product's three matrices."""

    left: int
    """A byte for each of rows x depth, times this."""
    right: int
    result: int

    def at(self, rows: int, columns: int, depth: int) -> int:
        return self.left * rows * depth + self.right * depth * columns + self.result * rows * columns


def hidden_terms(form: Format, element_bytes: int, emulated_in: int | None = None) -> tuple[Terms, ...]:
    """What a product allocates beside its result, at each of its moments: the peak is the largest.

    Both operands are rounded, one after the other; then they are multiplied. int8 is rounded in fp32, its
    sums are int32, and scaled in fp32. Where fp8 is emulated, `emulated_in` are the bytes of an element of
    the format that multiplies. Scales are left out: a 4-byte number for each row and each column.
    """
    if form == "int8":
        return (Terms(5, 0, -element_bytes), Terms(1, 5, -element_bytes), Terms(1, 1, 8 - element_bytes))
    if emulated_in is None:
        return (Terms(1, 1, 0),)
    turned_back = Terms(1, 1, 0 if emulated_in == element_bytes else emulated_in)
    return (Terms(1 + emulated_in, 1 + emulated_in, emulated_in - element_bytes), turned_back)


def traffic_terms(form: Format, element_bytes: int, emulated_in: int | None = None) -> Terms:
    """Bytes that a product reads and writes beside the product itself, operator by operator.

    An operand's largest magnitudes (read), and its 8 bits (read, write), for int8 by way of fp32 (write,
    read). int8's sums are scaled twice (read, write; read, write). Where fp8 is emulated, the 8 bits are
    turned back (read, write), and results are scaled twice and, in another format, turned back.
    """
    operand = 2 * element_bytes + 1
    if form == "int8":
        return Terms(operand + 8, operand + 8, (4 + 4) + (4 + element_bytes))
    if emulated_in is None:
        return Terms(operand, operand, 0)
    operand += 1 + emulated_in
    back = 0 if emulated_in == element_bytes else emulated_in + element_bytes
    return Terms(operand, operand, 4 * emulated_in + back)
