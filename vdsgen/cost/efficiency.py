"""Share of a GPU's sustained rate that a matrix product or an attention of a given shape reaches.

Every function returns a number in (0, 1]. Nothing here is fitted to a training run: tiles, waves and
exponentials are counted. Ignored: the smaller tiles that a library may pick for small products.
"""

from __future__ import annotations

import math

MATRIX_TILE = 128
"""Edge of the tile of the result that one multiprocessor computes (NVIDIA, Matrix Multiplication Background
User's Guide, "Tile Quantization", DU-09799-001)."""
SPLIT_DEPTH = 512
"""Depth of a piece where a product has fewer tiles than there are multiprocessors and is cut along its depth
(the same guide's split-k; CUTLASS calls it serial split-k): four k-steps of 128."""
QUERY_TILE = 128
KEY_TILE = 64
"""Flash attention's blocks of queries and keys for head sizes up to 128 (flash_attn 2,
flash_fwd_launch_template.h, run_mha_fwd_hdim128; PyTorch ships the same kernel)."""
PROLOGUE_KEYS = 128
"""A block of queries loads itself, fills the pipeline and writes its output: two blocks of keys' time."""


def tiles(size: int, tile: int) -> int:
    """Tiles that cover a length."""
    return -(-size // tile)


def wave_efficiency(pieces: int, multiprocessors: int | None) -> float:
    """Share of the multiprocessors that work, averaged over waves of `pieces` equal pieces of work
    (the same guide, "Wave Quantization")."""
    if multiprocessors is None:
        return 1.0
    return pieces / (tiles(pieces, multiprocessors) * multiprocessors)


def matrix_efficiency(rows: int, columns: int, depth: int, multiprocessors: int | None) -> float:
    """Of (rows x depth) times (depth x columns): full tiles, full waves."""
    down, across = tiles(rows, MATRIX_TILE), tiles(columns, MATRIX_TILE)
    filled = rows * columns / (down * across * MATRIX_TILE**2)
    pieces = down * across
    if multiprocessors is not None and pieces < multiprocessors:
        return filled * min(1.0, pieces * max(1.0, depth / SPLIT_DEPTH) / multiprocessors)
    return filled * wave_efficiency(pieces, multiprocessors)


def attention_efficiency(
    query_length: float,
    key_length: float,
    sequences: float,
    head_size: int,
    flops_per_exponential: float,
    multiprocessors: int | None,
) -> float:
    """Of softmax(q k^T) v for `sequences` times heads, each query_length x key_length.

    Tiles that are not full, the start of each row of tiles, waves that are not full, and the exponential
    that every score needs: 4 x head_size FLOPs run at the matrix rate, one exponential takes the time of
    `flops_per_exponential` more (arXiv 2407.08608, section 3.1: on H100 512 times fewer exponentials than
    matrix FLOPs at head size 128 can take half of the time).
    """
    rows = tiles(math.ceil(query_length), QUERY_TILE)
    filled = query_length / (rows * QUERY_TILE)
    filled *= key_length / (tiles(math.ceil(key_length), KEY_TILE) * KEY_TILE)
    started = key_length / (key_length + PROLOGUE_KEYS)
    waves = wave_efficiency(max(1, round(rows * sequences)), multiprocessors)
    return filled * started * waves * softmax_share(head_size, flops_per_exponential)


def softmax_share(head_size: int, flops_per_exponential: float) -> float:
    """Share of an attention's time that its matrix products take, were nothing else slow."""
    return 4 * head_size / (4 * head_size + flops_per_exponential)
