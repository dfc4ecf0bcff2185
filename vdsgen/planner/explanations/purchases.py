"""What the next one would buy: a GPU, a node, GiB, a link, a larger batch, a pin let go; planned again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vdsgen.planner.again import best_candidate, fastest_seconds
from vdsgen.planner.explanations import changes
from vdsgen.planner.explanations.changes import Change
from vdsgen.planner.search import SIMPLER_WITHIN, Candidate
from vdsgen.planner.words import changed_words
from vdsgen.planner.workload import Workload
from vdsgen.spec.explanations import Purchase
from vdsgen.spec.lab import Pool

STEP_GIB = 0.25
"""How finely the next GiB are looked for."""
MOST_TIMES_MEMORY = 16
"""How far memory is grown before giving up."""


def purchases(workload: Workload, winner: Candidate, named: Pool) -> Iterator[Purchase]:
    """In the order that people ask. `named` is the pool as the lab file gives it."""
    yield from _next_gpus(workload, winner)
    for change in changes.another_node(workload):
        yield bought(change, winner)
    yield next_memory(workload, winner)
    for change in changes.next_links(workload, named):
        yield bought(change, winner)
    size = 2 * workload.experiment.training.global_batch_size
    larger = changes.with_global_batch(workload, size)
    yield bought(Change("global_batch", f"a global batch of {size} (now {size // 2})", larger), winner)
    for change in changes.without_pins(workload):
        yield bought(change, winner)


def bought(change: Change, winner: Candidate) -> Purchase:
    """What planning again with it gives."""
    return _purchase(change, winner, best_candidate(change.workload))


def wins(then: Candidate | None, winner: Candidate) -> bool:
    """Whether a plan is faster by more than what a simpler plan may be slower."""
    return then is not None and then.time.samples_per_second > winner.time.samples_per_second * (
        1 + SIMPLER_WITHIN
    )


def _purchase(change: Change, winner: Candidate, then: Candidate | None, **more: float) -> Purchase:
    now = winner.time.samples_per_second
    words = "no plan is possible" if then is None else changed_words(winner.settings, then.settings)
    if then is not None and change.resource in ("gpus", "nodes"):
        there, used = change.workload.pool.world_size, then.settings.world_size
        words += f" ({used} of {there} GPUs used)" if used < there else ""
    return Purchase(
        resource=change.resource,
        change=change.words,
        samples_per_second=None if then is None else then.time.samples_per_second,
        gain_fraction=None if then is None else then.time.samples_per_second / now - 1,
        plan=words,
        **more,
    )


def _next_gpus(workload: Workload, winner: Candidate) -> Iterator[Purchase]:
    """One GPU more, and the next number that wins something where that one does not."""
    for number, change in enumerate(changes.more_gpus(workload)):
        then = best_candidate(change.workload)
        won = wins(then, winner)
        if number == 0 or won:
            yield _purchase(change, winner, then)
        if won:
            return


def next_memory(workload: Workload, winner: Candidate) -> Purchase:
    """The smallest increase of a GPU's memory, in steps of STEP_GIB, that makes the best plan faster by more
    than a simpler plan may be slower. No plan gets slower with more memory, so halving finds it."""
    there = changes.memory_gib(workload)
    goal = winner.time.step_seconds / (1 + SIMPLER_WITHIN)

    def faster(steps: int) -> bool:
        return fastest_seconds(changes.with_gpu_memory(workload, there + steps * STEP_GIB)) < goal

    most = round((MOST_TIMES_MEMORY - 1) * there / STEP_GIB)
    steps = least(faster, most)
    where = "in the node" if workload.ranks_share_host_memory else "on each GPU"
    if steps is None:
        words = f"any more memory {where} (now {there:g} GiB)"
        more = changes.with_gpu_memory(workload, MOST_TIMES_MEMORY * there)
        return _purchase(Change("gpu_memory", words, more), winner, best_candidate(more))
    added = steps * STEP_GIB
    words = f"{added:g} GiB more {where} ({there + added:g} GiB, now {there:g})"
    more = changes.with_gpu_memory(workload, there + added)
    return _purchase(Change("gpu_memory", words, more), winner, best_candidate(more), added_gib=added)


def least(holds: Callable[[int], bool], most: int) -> int | None:
    """The least whole number above 0 that it holds for, where it holds for all larger ones; None where not
    even for `most`."""
    if most < 1 or not holds(most):
        return None
    low, high = 0, 1
    while high < most and not holds(high):
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
