"""Words for what numbers are kept and sent in."""

from __future__ import annotations

from typing import Literal

Dtype = Literal["fp32", "bf16", "fp16"]

CommunicationPrecision = Literal["exact", "reduced", "quantized"]
