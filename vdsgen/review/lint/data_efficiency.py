"""The section data_efficiency: what each of its parts needs once it is on.

Curriculum learning and dynamic batching are parsed, and refused, whether or not data_efficiency itself is on
(runtime/data_pipeline/config.py:26).
"""

from __future__ import annotations

from vdsgen.review.lint.document import Document
from vdsgen.review.lint.finding import Finding, finding_at
from vdsgen.review.lint.keys import Values

SECTION = ("data_efficiency",)
SAMPLING = (*SECTION, "data_sampling")
NEEDS = (
    ((*SAMPLING, "curriculum_learning"), ("curriculum_metrics",), "runtime/data_pipeline/config.py:88"),
    ((*SAMPLING, "dynamic_batching"), ("max_tokens",), "runtime/data_pipeline/config.py:117"),
    (
        (*SECTION, "data_routing", "random_ltd"),
        (
            "total_layer_num",
            "random_ltd_layer_num",
            "random_ltd_layer_id",
            "random_ltd_schedule",
            "global_batch_size",
        ),
        "runtime/data_pipeline/data_routing/scheduler.py:42-45",
    ),
)
"""The part, the keys that it needs once it is enabled, and where they are read."""


def incomplete_parts(document: Document, values: Values) -> list[Finding]:
    """Parts that are on without what they need."""
    found = []
    for path, needed, source in NEEDS:
        pointer = "/" + "/".join(path)
        node = document.node((*path, "enabled"))
        if pointer not in values.given or node is None or not node.plain():
            continue
        missing = [key for key in needed if f"{pointer}/{key}" not in values.given]
        if missing:
            found.append(
                finding_at(
                    document, path, "data-efficiency-incomplete", "error",
                    f"{path[-1]} is enabled without {', '.join(missing)}",
                    remedy=f"add {', '.join(missing)}, or set enabled to false", source=source, at_key=True,
                )
            )  # fmt: skip
    return found
