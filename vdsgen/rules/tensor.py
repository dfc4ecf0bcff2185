"""Rules on ranks that share blocks."""

from __future__ import annotations

from vdsgen.rules.rule import Facts, Rule

VERSIONS = "0.19.8"


def _heads_are_whole(facts: Facts) -> str | None:
    ranks, heads = facts.tensor_parallel_size, facts.heads
    if ranks is None or heads is None or heads % ranks == 0:
        return None
    return f"tensor parallel size {ranks} does not divide {heads} attention heads"


def _columns_are_even(facts: Facts) -> str | None:
    ranks, columns = facts.tensor_parallel_size, facts.mlp_hidden_size
    if ranks is None or columns is None or columns % ranks == 0:
        return None
    return f"tensor parallel size {ranks} does not divide mlp_hidden_size {columns}"


def _within_a_node(facts: Facts) -> str | None:
    ranks, gpus = facts.tensor_parallel_size, facts.gpus_per_node
    if ranks is None or gpus is None or gpus % ranks == 0:
        return None
    return f"tensor parallel size {ranks} does not divide the {gpus} GPUs of a node"


RULES = (
    Rule(
        id="tensor-heads",
        summary="Tensor-parallel ranks share a block's attention heads evenly: each computes whole ones.",
        check=_heads_are_whole,
        remedy="use a tensor parallel size that divides the model's heads",
        source="model/layers/tensor_parallel.py, check_tensor_ranks",
        versions=VERSIONS,
    ),
    Rule(
        id="tensor-columns",
        summary="Tensor-parallel ranks share the columns between the MLP's two linears evenly.",
        check=_columns_are_even,
        remedy="use a tensor parallel size that divides mlp_hidden_size",
        source="model/layers/tensor_parallel.py, check_tensor_ranks",
        versions=VERSIONS,
    ),
    Rule(
        id="tensor-within-node",
        summary=(
            "Tensor-parallel ranks are on one node: they exchange the hidden state several times a block, "
            "and nothing hides it."
        ),
        check=_within_a_node,
        remedy="use a tensor parallel size that divides the GPUs of a node; pipelines go between nodes",
        source="vdsgen/cost/communication.py, tensor_group",
        versions=VERSIONS,
    ),
)
