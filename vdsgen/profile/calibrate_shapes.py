"""What is measured: the shapes of a bundled model's block, on a GPU a large one's, and more."""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.catalog.load import models
from vdsgen.catalog.profiles import profile_for
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.profile import LayerType

BUNDLED_MODEL = "vdt-demo"
CLIP = Geometry(frames=8, patches=64, text_tokens=0, latent_height=8, latent_width=8)
SPECK = Geometry(frames=4, patches=2, text_tokens=0, latent_height=1, latent_width=2)
"""So little that only dispatching operators takes time."""
BATCHES = (1, 4)
LARGE_BYTES = 8 * 1024**2
SMALL_BYTES = 1024
"""Smallest message; a multiple of any number of ranks up to 256 times 4 bytes."""
HOST_BYTES = 256 * 1024**2
CHECKPOINT = "checkpoint"
CHECKPOINT_BYTES = 128 * 1024**2
"""Of each rank's file: every one is flushed to the disk, so that no cache need be outrun."""


class EngineCase(NamedTuple):
    """One way in which the engine runs."""

    name: str
    zero_stage: int
    stages: int = 1
    gathers: bool = False
    """ZeRO-3 gathers every parameter instead of keeping small ones."""


ENGINE_CASES = (
    EngineCase("zero-0", 0),
    EngineCase("zero-1", 1),
    EngineCase("zero-2", 2),
    EngineCase("zero-3", 3),
    EngineCase("gathers", 3, gathers=True),
    EngineCase("pipeline", 0, stages=2),
)
ENGINE_MICRO_BATCHES = (1, 3)
ENGINE_BLOCKS = 4


class Sizes(NamedTuple):
    """What is measured on a kind of device."""

    large_product: tuple[int, int, int]
    stream_elements: int
    adamw_parameters: int
    """On a GPU so many that starting the kernel is nothing beside it."""
    model: str
    """Bundled model whose block is measured."""
    clip: Geometry
    batches: tuple[int, int]
    """Clips in a block's micro-batch: on a GPU so many that it computes longer than the host dispatches."""
    more_products: tuple[tuple[int, int, int], ...] = ()
    """Beside those of the bundled model: rows, columns, depth."""
    more_attentions: tuple[tuple[int, int, int], ...] = ()
    """Sequences times heads, length, head size."""


ON_PROCESSOR = Sizes((1024, 768, 768), 8 * 1024**2, 2 * 1024**2, BUNDLED_MODEL, CLIP, BATCHES)
WIDTHS = ((1024, 1024), (2048, 2048), (2048, 8192), (8192, 2048), (5120, 5120))
ON_GPU = Sizes(
    (8192, 8192, 8192),
    256 * 1024**2,
    64 * 1024**2,
    "vdt-1.5b",
    Geometry(frames=16, patches=256, text_tokens=77, latent_height=32, latent_width=32),
    (4, 8),
    (
        *((rows, columns, depth) for rows in (2048, 16384) for columns, depth in WIDTHS),
        (2048, 2048, 16384),
        (5120, 5120, 16384),
    ),
    # As many tokens at every length, so that short sequences fill the GPU too.
    tuple((64 * 4096 // length, length, size) for length in (256, 1024, 4096) for size in (64, 128)),
)


def block_type(model: str = BUNDLED_MODEL) -> LayerType:
    """A bundled model's block, as its committed profile has it."""
    return layer_types(model)["block"]


def layer_types(model: str = BUNDLED_MODEL) -> dict[str, LayerType]:
    """A bundled model's, by name."""
    profile = profile_for(models()[model].sizes)
    assert profile is not None, "the bundled models' profiles are committed"
    return profile.layer_types


def engine_layers() -> list[LayerType]:
    """Layers of the model that the engine is measured with: of the bundled kinds, and much narrower."""
    types = layer_types()
    return [types["embed"], *[types["block"]] * ENGINE_BLOCKS, types["final"]]


def product_shapes(sizes: Sizes) -> list[tuple[int, int, int]]:
    """(rows, columns, depth) of the block's products, forward and backward, and more."""
    found: dict[tuple[int, int, int], None] = {}
    for batch in sizes.batches:
        for product in block_type(sizes.model).products:
            rows = product.rows.at(batch, sizes.clip)
            for shape in (
                (rows, product.columns, product.depth),
                (rows, product.depth, product.columns),
                (product.columns, product.depth, rows),
            ):
                found[shape] = None
    for shape in sizes.more_products:
        found[shape] = None
    return list(found)


def attention_shapes(sizes: Sizes) -> list[tuple[int, int, int]]:
    """(sequences times heads, length, head size) of the block's attentions to its own tokens, and more. What
    attends to text is no square, and so little that `_known_parts` leaves it to the rest."""
    found: dict[tuple[int, int], tuple[int, int, int]] = {}
    for attention in block_type(sizes.model).attentions:
        scores = attention.flops.at(sizes.batches[0], sizes.clip) // (4 * attention.head_size)
        queries = attention.heads * attention.query_rows.at(sizes.batches[0], sizes.clip)
        keys = attention.heads * attention.key_rows.at(sizes.batches[0], sizes.clip)
        if queries == keys:
            length = scores // queries
            found[length, attention.head_size] = (queries // length, length, attention.head_size)
    for shape in sizes.more_attentions:
        found.setdefault(shape[1:], shape)
    return list(found.values())
