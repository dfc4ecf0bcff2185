"""Pairs of neighbouring ranks, and a measurement over gloo."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.forks.start import free_port, start
from tests.model.ranks import rank_environment
from vdsgen.model.link_rates import rounds_of_pairs

MODULE = "vdsgen.model.link_rates"


@settings(max_examples=30)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_every_pair_of_neighbours_once_and_no_rank_twice_at_a_time(nodes: list[int]) -> None:
    rounds = list(rounds_of_pairs(nodes))
    node_of = [node for node, count in enumerate(nodes) for _ in range(count)]
    for pairs in rounds:
        ranks = [rank for pair in pairs for rank in pair[1:]]
        assert len(ranks) == len(set(ranks))
        assert len({pair.kind for pair in pairs}) == 1
    every = [pair for pairs in rounds for pair in pairs]
    assert len(set(every)) == len(every)
    inside = [pair for pair in every if pair.kind == "intra_node"]
    assert len(inside) == sum(count - 1 for count in nodes)
    assert all(node_of[pair.first] == node_of[pair.second] for pair in inside)
    between = [pair for pair in every if pair.kind == "inter_node"]
    assert len(between) == (len(nodes) if len(nodes) > 2 else len(nodes) - 1)
    assert all(node_of[pair.first] != node_of[pair.second] for pair in between)


def test_links_are_measured_by_the_first_of_each_pair() -> None:
    port, said = free_port(), []
    with ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3)]
        ranks = [
            start(
                "vdsgen.model.link_rates",
                "2",
                "1",
                environment=rank_environment(rank, 3, port),
                stdout=output,
            )
            for rank, output in enumerate(outputs)
        ]
        for rank in ranks:
            stack.callback(rank.kill)
        assert [rank.wait(60) for rank in ranks] == [0, 0, 0]
        for output in outputs:
            output.seek(0)
            said.append(json.loads(output.read().splitlines()[-1]))
    assert [one["kind"] for one in said[0]] == ["intra_node", "inter_node", "all_reduce"]
    assert said[1:] == [[], []]
    assert all(one["bytes_per_second"] > 1e6 for one in said[0])
