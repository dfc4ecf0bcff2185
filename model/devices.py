"""Which of its host's GPUs a rank computes on, where a plan says so."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from vdsgen.spec.plan import PlannedNode


def take_planned_device(nodes: Sequence[PlannedNode], environment: MutableMapping[str, str]) -> None:
    """Sets LOCAL_RANK to the place of the rank's planned device among those that the launcher shows.

    DeepSpeed's launcher shows a host's devices in rising order (launcher/runner.py:303) and gives rank r the
    one at r modulo their number (launcher/launch.py:230), which is not the rank's place on its host where
    hosts before it have another number of ranks. DeepSpeed and the trainer both take the device that
    LOCAL_RANK names (runtime/engine.py:1941). Nothing changes for plans without `nodes`.
    """
    left = int(environment.get("RANK", "0"))
    for node in nodes:
        if left < len(node.devices):
            environment["LOCAL_RANK"] = str(sorted(node.devices).index(node.devices[left]))
            return
        left -= len(node.devices)
