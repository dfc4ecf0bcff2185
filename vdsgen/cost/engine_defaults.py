"""The engine settings that memory depends on and that nobody plans: one place that the cost model
reads and the renderer writes into `ds_config.json`, so that what is predicted is what runs.

Values marked `engine default` are written out all the same: a default that changes in a later
DeepSpeed must not change a rendered plan.
"""

from __future__ import annotations

CONTIGUOUS_GRADIENTS = True
"""ZeRO 1-3. Reduced gradients are copied through one bucket instead of being flattened anew."""
OVERLAP_COMM = False
"""ZeRO 1-3. True would hold a second reduce bucket (zero/stage_1_and_2.py, `setup_buckets`)."""
ROUND_ROBIN_GRADIENTS = False
"""ZeRO 1-2 (engine default)."""
REDUCE_SCATTER = True
"""ZeRO 1-3 (engine default)."""

STAGE3_MAX_LIVE_PARAMETERS = 10**9
"""Elements of gathered parameters that may be held at once (engine default)."""
STAGE3_MAX_REUSE_DISTANCE = 10**9
"""Elements (engine default)."""
STAGE3_PREFETCH_BUCKET_ELEMENTS = 50_000_000
"""Elements gathered ahead (engine default)."""
STAGE3_PARAM_PERSISTENCE_THRESHOLD = 100_000
"""Parameters with at most this many elements stay gathered (engine default)."""
STAGE3_SUB_GROUP_ELEMENTS = 10**9
"""Elements that one optimizer step updates at once (engine default)."""

UNZEROED_ALLREDUCE_BUCKET_ELEMENTS = 500_000_000
"""Without ZeRO, gradients are flattened into buffers of this size for their all-reduce
(`MEMORY_OPT_ALLREDUCE_SIZE`, runtime/engine.py); no setting changes it."""
