"""Rules on tensor and sequence parallel ranks, experts, and the nodes they run on."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import removal
from vdsgen.rules.rule import Change, Rule

AUTOTP = "/tensor_parallel/autotp_size"
TP_SIZE = "/tensor_parallel/tp/tp_size"
LIGER = "/tensor_parallel/vocab_parallel_ce_backend"


def _tensor_sizes_agree(facts: Facts) -> str | None:
    size, other = facts.tensor_parallel.autotp_size, facts.tensor_parallel.tp_size
    if size is None or size <= 1 or other is None or other in (1, size):
        return None
    return f"tensor_parallel.autotp_size is {size}, tensor_parallel.tp.tp_size {other}"


def _one_tensor_size(facts: Facts) -> tuple[Change, ...]:
    return ((TP_SIZE, facts.tensor_parallel.autotp_size),)


def _tensor_divides_world(facts: Facts) -> str | None:
    size, world = facts.tensor_parallel.autotp_size, facts.world_size
    if size is None or size <= 1 or world is None or world % size == 0:
        return None
    return f"tensor_parallel.autotp_size {size} does not divide {world} ranks"


def _tensor_size_or_pipeline(facts: Facts) -> str | None:
    size = facts.tensor_parallel.autotp_size
    if size is None or size <= 1 or not facts.is_pipeline:
        return None
    return f"tensor_parallel.autotp_size is {size} in a pipeline"


def _autotp_has_heads(facts: Facts) -> str | None:
    size, heads = facts.tensor_parallel.autotp_size, facts.model.key_value_heads
    if size is None or heads is None or size <= heads:
        return None
    return f"tensor_parallel.autotp_size is {size}, the model has {heads} key-value heads"


def _liger_has_a_head(facts: Facts) -> str | None:
    tensor = facts.tensor_parallel
    if tensor.vocab_parallel_ce_backend != "liger" or tensor.autotp_size is None or tensor.autotp_size <= 1:
        return None
    return (
        "vocab_parallel_ce_backend is liger, vocab_parallel_lm_head false"
        if tensor.vocab_parallel_lm_head is False
        else None
    )


def _tensor_ranks_share_heads(facts: Facts) -> str | None:
    ranks, heads = facts.tensor_parallel_size, facts.model.heads
    if ranks is None or heads is None or heads % ranks == 0:
        return None
    return f"{ranks} tensor parallel ranks do not divide {heads} attention heads"


def _tensor_ranks_share_columns(facts: Facts) -> str | None:
    ranks, columns = facts.tensor_parallel_size, facts.model.mlp_hidden_size
    if ranks is None or columns is None or columns % ranks == 0:
        return None
    return f"tensor parallel size {ranks} does not divide mlp_hidden_size {columns}"


def _tensor_ranks_share_a_node(facts: Facts) -> str | None:
    ranks, gpus, world = facts.tensor_parallel_size, facts.machine.gpus_per_node, facts.world_size
    if ranks is None or gpus is None or (ranks <= gpus and (world is None or world <= gpus)):
        return None
    if gpus % ranks == 0:
        return None
    return f"tensor parallel size {ranks} does not divide the {gpus} GPUs of a node"


def _not_shared(ranks: int | None, counts: tuple[int, ...] | None, what: str) -> str | None:
    for count in counts or ():
        if ranks is not None and count % ranks:
            return f"sequence parallel size {ranks} does not divide the clips' {count} {what}"
    return None


def _sequence_ranks_share_rows(facts: Facts) -> str | None:
    return _not_shared(facts.sequence_parallel_size, facts.model.patch_rows, "rows of patches")


def _sequence_ranks_share_frames(facts: Facts) -> str | None:
    return _not_shared(facts.sequence_parallel_size, facts.model.latent_frames, "latent frames")


def _sequence_ranks_share_a_node(facts: Facts) -> str | None:
    sequence, gpus, world = facts.sequence_parallel_size, facts.machine.gpus_per_node, facts.world_size
    if sequence is None or sequence == 1 or gpus is None:
        return None
    ranks = sequence * (facts.tensor_parallel_size or 1)
    if gpus % ranks == 0 or (ranks <= gpus and (world is None or world <= gpus)):
        return None
    tensor = f" x tensor {facts.tensor_parallel_size}" if ranks > sequence else ""
    return f"sequence parallel size {sequence}{tensor} does not divide the {gpus} GPUs of a node"


def _sequence_divides_world(facts: Facts) -> str | None:
    ranks, world = facts.ulysses_parallel_size, facts.world_size
    if ranks is None or ranks <= 1 or world is None or world % ranks == 0:
        return None
    return f"{ranks} sequence parallel ranks do not divide {world} ranks"


def _sequence_ranks_share_heads(facts: Facts) -> str | None:
    ranks, heads = facts.ulysses_parallel_size, facts.model.heads
    if ranks is None or ranks <= 1 or heads is None or heads % ranks == 0:
        return None
    return f"{ranks} sequence parallel ranks do not divide {heads} attention heads"


def _sequence_ranks_share_keys(facts: Facts) -> str | None:
    ranks, heads = facts.ulysses_parallel_size, facts.model.key_value_heads
    if ranks is None or ranks <= 1 or heads is None or heads % ranks == 0 or ranks % heads == 0:
        return None
    return f"{ranks} sequence parallel ranks and {heads} key-value heads: neither divides the other"


def _sequence_ranks_share_tokens(facts: Facts) -> str | None:
    ranks, tokens = facts.ulysses_parallel_size, facts.model.tokens
    if ranks is None or ranks <= 1 or tokens is None or tokens % ranks == 0:
        return None
    return f"{ranks} sequence parallel ranks do not divide {tokens} tokens"


def _experts_below_stage_3(facts: Facts) -> str | None:
    if not facts.model.mixture_of_experts or facts.zero_stage != 3:
        return None
    return "DeepSpeed's mixture of experts at ZeRO stage 3"


def _slurm_nodes_are_equal(facts: Facts) -> str | None:
    nodes = facts.machine.gpus_of_nodes
    if facts.machine.launcher != "slurm" or nodes is None or len(set(nodes)) <= 1:
        return None
    return f"slurm, and nodes start {', '.join(map(str, nodes))} ranks"


RULES = (
    Rule(
        id="autotp-sizes-agree",
        summary="The two tensor parallel sizes of the section tensor_parallel agree.",
        check=_tensor_sizes_agree,
        remedy="take tensor_parallel.tp.tp_size out",
        source="runtime/engine.py:1021",
        engine_message="does not match tensor_parallel.autotp_size",
        keys=(TP_SIZE, AUTOTP),
        fix=_one_tensor_size,
        needs=("tensor_parallel",),
    ),
    Rule(
        id="autotp-divides-world",
        summary="Tensor parallel ranks divide the ranks of the job.",
        check=_tensor_divides_world,
        remedy="use a size that divides the number of ranks",
        source="utils/groups.py:166",
        engine_message="is not divisible by",
        keys=(AUTOTP,),
        needs=("tensor_parallel",),
    ),
    Rule(
        id="autotp-pipeline",
        summary="AutoTP builds groups without a pipeline axis: it does not work in a pipeline.",
        check=_tensor_size_or_pipeline,
        remedy="split layers in the training code, or use no pipeline",
        source="runtime/engine.py:957",
        severity="ours",
        keys=(AUTOTP,),
        fix=removal(AUTOTP),
        needs=("tensor_parallel",),
    ),
    Rule(
        id="autotp-heads",
        summary="AutoTP ranks beyond the key-value heads have no attention to compute.",
        check=_autotp_has_heads,
        remedy="use at most as many ranks as key-value heads",
        source="runtime/engine.py:1046",
        severity="hurts",
        keys=(AUTOTP,),
        needs=("tensor_parallel", "model"),
    ),
    Rule(
        id="autotp-liger",
        summary="Liger's cross entropy needs a vocabulary-parallel head.",
        check=_liger_has_a_head,
        remedy="set vocab_parallel_lm_head to true, or vocab_parallel_ce_backend to torch",
        source="runtime/engine.py:1076",
        engine_message="vocab_parallel_ce_backend='liger' requires a no-gather vocabulary-parallel LM head",
        keys=(LIGER,),
        fix=removal(LIGER),
        needs=("tensor_parallel",),
    ),
    Rule(
        id="tensor-heads",
        summary="Tensor parallel ranks share the attention heads evenly.",
        check=_tensor_ranks_share_heads,
        remedy="use a tensor parallel size that divides the heads",
        source="model/layers/tensor_parallel.py, check_tensor_ranks",
        severity="ours",
        needs=("model",),
    ),
    Rule(
        id="tensor-columns",
        summary="Tensor parallel ranks share the columns between the MLP's two linears evenly.",
        check=_tensor_ranks_share_columns,
        remedy="use a tensor parallel size that divides mlp_hidden_size",
        source="model/layers/tensor_parallel.py, check_tensor_ranks",
        severity="ours",
        needs=("model",),
    ),
    Rule(
        id="tensor-within-node",
        summary=(
            "Tensor parallel ranks are on one node: they exchange the hidden state several times a block, "
            "and nothing hides it."
        ),
        check=_tensor_ranks_share_a_node,
        remedy="use a tensor parallel size that divides the GPUs of a node; pipelines go between nodes",
        source="vdsgen/cost/communication.py, tensor_group",
        severity="ours",
        needs=("machine",),
    ),
    Rule(
        id="sequence-rows",
        summary="Sequence parallel ranks share the rows of patches of a frame evenly.",
        check=_sequence_ranks_share_rows,
        remedy="use a sequence parallel size that divides them, or clips of another height",
        source="model/layers/sequence_parallel.py, check_sequence_ranks",
        severity="ours",
        needs=("model",),
    ),
    Rule(
        id="sequence-frames",
        summary="Sequence parallel ranks share the latent frames evenly: each attends within some of them.",
        check=_sequence_ranks_share_frames,
        remedy="use a sequence parallel size that divides them, or clips of another length",
        source="model/layers/sequence_parallel.py, check_sequence_ranks",
        severity="ours",
        needs=("model",),
    ),
    Rule(
        id="sequence-within-node",
        summary=(
            "Sequence parallel ranks, and the tensor parallel ones of each, are on one node: they exchange "
            "the hidden state in every block, and nothing hides it."
        ),
        check=_sequence_ranks_share_a_node,
        remedy="use sizes whose product divides the GPUs of a node",
        source="vdsgen/cost/communication.py, sequence_exchange_seconds",
        severity="ours",
        needs=("machine",),
    ),
    Rule(
        id="sequence-divides-world",
        summary="Ulysses sequence parallel ranks divide the ranks of the job.",
        check=_sequence_divides_world,
        remedy="use a size that divides the number of ranks",
        source="runtime/sequence_parallel/parallel_state_sp.py:37",
        engine_message="is not divisible by sequence_parallel_size",
        keys=("/sequence_parallel_size",),
    ),
    Rule(
        id="sequence-heads",
        summary="Ulysses sequence parallel ranks share the attention heads evenly.",
        check=_sequence_ranks_share_heads,
        remedy="use a size that divides the heads",
        source="runtime/sequence_parallel/ulysses_sp.py:148",
        engine_message="is not divisible by SP size",
        keys=("/sequence_parallel_size",),
        needs=("model",),
    ),
    Rule(
        id="sequence-key-value-heads",
        summary=(
            "Ulysses sequence parallel ranks share the key-value heads evenly, or key-value heads the ranks."
        ),
        check=_sequence_ranks_share_keys,
        remedy="use a size that divides the key-value heads, or a multiple of them",
        source="runtime/sequence_parallel/ulysses_sp.py:150",
        engine_message="KV attention head count",
        keys=("/sequence_parallel_size",),
        needs=("model",),
    ),
    Rule(
        id="sequence-tokens",
        summary="Ulysses sequence parallel ranks share the tokens of a sample evenly.",
        check=_sequence_ranks_share_tokens,
        remedy="use a size that divides the tokens, or clips of another size",
        source="runtime/sequence_parallel/ulysses_sp.py:707",
        engine_message="isn't divisible by sp-size",
        keys=("/sequence_parallel_size",),
        needs=("model",),
    ),
    Rule(
        id="experts-zero-3",
        summary="DeepSpeed's own mixture of experts does not work at stage 3.",
        check=_experts_below_stage_3,
        remedy="use ZeRO stage 1 or 2",
        source="runtime/engine.py:2215",
        engine_message="Native DeepSpeed MoE is not supported with ZeRO Stage 3",
        keys=("/zero_optimization/stage",),
        needs=("model",),
    ),
    Rule(
        id="slurm-equal-nodes",
        summary="Under slurm every node starts equally many ranks.",
        check=_slurm_nodes_are_equal,
        remedy="use whole nodes, or the pdsh launcher",
        source="launcher/multinode_runner.py:381",
        engine_message="slurm backend needs the same slot count on every host",
        needs=("machine",),
    ),
)
