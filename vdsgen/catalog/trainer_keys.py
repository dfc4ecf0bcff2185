"""Keys of a DeepSpeed config that the bundled training entrypoint reads, and the engine does not."""

from __future__ import annotations

from collections.abc import Mapping

READ_BY_THE_TRAINER: Mapping[str, frozenset[str]] = {
    "": frozenset({"vdsgen"}),
    "pipeline": frozenset(
        {
            "stages",
            "partition",
            "stage_checkpoint_intervals",
            "plain_layers",
            "selective_layers",
            "compress_activations",
            "offload_activations",
            "tensor_parallel_size",
            "sequence_parallel_size",
        }
    ),
    "vdsgen": frozenset({"gradient_compression", "ema", "optimizer_state_dtype", "schedule"}),
}
"""By section: keys that the engine leaves to the training entrypoint (model/build.py, build_engine)."""
