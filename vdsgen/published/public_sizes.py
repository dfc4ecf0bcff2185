"""Published sizes of decoders that tables name without giving them."""

from __future__ import annotations

import re
from typing import NamedTuple


class PublicSizes(NamedTuple):
    """What a name stands for."""

    pattern: str
    """Of the name in lower case, without spaces, dashes and underscores."""
    layers: int
    hidden: int
    heads: int


PUBLIC_SIZES = (
    PublicSizes(r"gpt3?175b", 96, 12288, 96),
    PublicSizes(r"gpt320b", 44, 6144, 48),
    PublicSizes(r"gpt35b", 24, 4096, 32),
    PublicSizes(r"llama(3(\.1)?)?405b", 126, 16384, 128),
    PublicSizes(r"llama(2|3(\.[13])?)?70b", 80, 8192, 64),
    PublicSizes(r"llama3(\.1)?8b", 32, 4096, 32),
    PublicSizes(r"llama2?13b", 40, 5120, 40),
    PublicSizes(r"llama2?7b", 32, 4096, 32),
    PublicSizes(r"qwen2\.57b", 28, 3584, 28),
    PublicSizes(r"qwen2\.53b", 36, 2048, 16),
)
"""GPT-3: arXiv 2005.14165, table 2.1; NeMo's 5 B and 20 B: NVIDIA/NeMo-Framework-Launcher, conf/training;
Llama: arXiv 2307.09288 and 2302.13971, table 2, and 2407.21783, table 3; Qwen2.5: arXiv 2412.15115, table 1,
and config.json."""


def public_sizes(model: str) -> PublicSizes | None:
    """Sizes of a model by its name; None for one that is not known."""
    name = re.sub(r"[\s_-]", "", model.lower())
    return next((one for one in PUBLIC_SIZES if re.search(one.pattern + r"(?![0-9])", name)), None)
