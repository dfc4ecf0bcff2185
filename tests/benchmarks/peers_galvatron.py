"""Galvatron's search on this machine, for the same model and lab: a process of its own, started by `peers`.

    python -m tests.benchmarks.peers_galvatron SOURCE EXPERIMENT LAB

SOURCE is an unpacked `hetu-galvatron` with its `galvatron_dp_core` built beside the package (docs/peers.md
says how). Nothing of it is part of this project. It asks for profiles that it would measure on GPUs; here
they are this project's traced ones: both search the same model on the same machine, so that the search is
what differs.

Only what DeepSpeed's engine can run is asked for: no tensor parallelism, 1F1B, ZeRO-2 as the data parallelism
that shards (its pipelines may, DeepSpeed's may not) and ZeRO-3 as `fsdp`, checkpointing by layer.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

from tests.benchmarks.peers_inputs import workload_for
from vdsgen.cost.layer_bytes import LayerBytes, layer_bytes
from vdsgen.cost.settings import BYTES_PER_ELEMENT
from vdsgen.planner.workload import Workload
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.lab import Gpu, Link

MIB = 1024**2
DTYPE: Dtype = "bf16"
STATES_OVER_PARAMETERS = 4
"""Galvatron's own: 16 bytes of states for the 4 of an fp32 parameter."""


def search_engine(source: Path) -> Any:
    """The search engine's module alone: the package's own start imports Megatron and asks for CUDA."""
    sys.path.insert(0, str(source))
    for name, folder in (("galvatron", "galvatron"), ("galvatron.core", "galvatron/core")):
        module = types.ModuleType(name)
        module.__path__ = [str(source / folder)]
        sys.modules[name] = module
    return importlib.import_module("galvatron.core.search_engine.search_engine")


def arguments(on: Workload, folder: Path) -> types.SimpleNamespace:
    """What its command line would set."""
    assert isinstance(on.pool.gpu, Gpu)
    return types.SimpleNamespace(
        hidden_size=on.experiment.model.hidden_size,  # type: ignore[union-attr]
        num_nodes=on.pool.nodes,
        num_gpus_per_node=on.pool.gpus_per_node,
        memory_constraint=on.capacity_bytes // 1024**3,
        settle_bsz=on.experiment.training.global_batch_size,
        settle_chunk=-1, min_bsz=1, max_bsz=1, bsz_scale=1, recommend_min_bsz=0,
        search_space="full", sp_space="tp",
        disable_dp=0, disable_tp=1, disable_vtp=1, disable_pp=0, disable_sdp=0, disable_ckpt=0,
        disable_tp_consec=1, max_tp_deg=1, max_pp_deg=on.pool.world_size, default_dp_type="zero2",
        embed_sdp=0, mixed_precision=DTYPE, pipeline_type="pipedream_flush",
        use_pipeline_costmodel=1, costmodel_coe=1.0, sequence_parallel=False, global_memory_buffer=False,
        async_grad_reduce=False, fine_grained_mode=1,
        time_profile_mode="static", memory_profile_mode="static",
        memory_profiling_path=str(folder), time_profiling_path=str(folder),
        allreduce_bandwidth_config_path=str(folder), p2p_bandwidth_config_path=str(folder),
        overlap_coe_path=str(folder), sp_time_path=str(folder), output_config_path=str(folder),
        log_dir=str(folder / "logs"), parallel_search=False,
    )  # fmt: skip


def write_profiles(on: Workload, folder: Path, tokens: int) -> None:
    """Layers, activations and links in its own files."""
    folder.mkdir(exist_ok=True)
    times = on.times.whole.micro_batch.layers(1, DTYPE)  # type: ignore[union-attr]
    held = layer_bytes(on.profile, on.geometry, 1, DTYPE)
    block, others = _split(on, times), _split(on, held)
    seconds = [one.forward_seconds for one in block[0]], [one.forward_seconds for one in block[1]]
    milliseconds = {
        f"layertype_0_bsz1_seq{tokens}": 1000 * sum(seconds[0]) / len(seconds[0]),
        f"layertype_other_bsz1_seq{tokens}": 1000 * sum(seconds[1]),
    }
    _write(folder / f"computation_profiling_{DTYPE}_model.json", milliseconds)
    _write(folder / f"memory_profiling_{DTYPE}_model.json", _memory(on, others, tokens))
    _write_links(on, folder)


def _memory(on: Workload, layers: tuple[list[LayerBytes], list[LayerBytes]], tokens: int) -> dict[str, Any]:
    types_of = on.profile.layer_types
    blocks = [types_of[name].parameters for name in on.profile.layers if types_of[name].is_block]
    first = types_of[on.profile.layers[0]].parameters
    rest = on.profile.parameters - sum(blocks) - first
    fp32 = BYTES_PER_ELEMENT["fp32"] / MIB

    def other(parameters: int, held: list[LayerBytes]) -> dict[str, Any]:
        states = STATES_OVER_PARAMETERS * fp32 * parameters
        activation = sum(one.held for one in held) / MIB
        return {str(tokens): {"model_states": {"1": states}, "activation": {"1": activation}}}

    in_blocks, outside = layers
    return {
        "layertype_0": {
            str(tokens): {
                "parameter_size": fp32 * sum(blocks) / len(blocks),
                "tp_activation_per_bsz_dict": {
                    "1": sum(one.held for one in in_blocks) / len(in_blocks) / MIB,
                    "checkpoint": in_blocks[0].output / MIB,
                },
            }
        },
        "other_memory_pp_off": other(first + rest, outside),
        "other_memory_pp_on_first": other(first, outside[:-1]),
        "other_memory_pp_on_last": other(rest, outside[-1:]),
    }


def _write_links(on: Workload, folder: Path) -> None:
    pool = on.pool
    assert isinstance(pool.intra_node, Link)
    inside = pool.intra_node.bandwidth_gb_per_second
    outside = inside
    if isinstance(pool.inter_node, Link):
        outside = pool.inter_node.bandwidth_gb_per_second * pool.network_cards
    suffix = f"{pool.nodes}nodes_{pool.gpus_per_node}gpus_per_node.json"
    sizes = [2**power for power in range(1, pool.world_size.bit_length())]

    def slowest(ranks: int, neighbours: bool) -> float:
        return inside if pool.nodes == 1 or (neighbours and ranks <= pool.gpus_per_node) else outside

    reduce = {f"allreduce_size_{n}_consec_{c}": slowest(n, bool(c)) for n in sizes for c in (0, 1)}
    _write(folder / f"allreduce_bandwidth_{suffix}", reduce)
    _write(folder / f"p2p_bandwidth_{suffix}", {f"pp_size_{n}": slowest(n, False) for n in sizes})
    _write(folder / "overlap_coefficient.json", {"overlap_coe": 1.0})
    # Only tensor and sequence parallelism read these; the reader wants eight points that lie on a line.
    unused = {f"{op}_size_2_{2**n}MB_time": 0.1 * 2**n for op in ("allreduce", "all2all") for n in range(8)}
    _write(folder / f"sp_time_{suffix}", unused)


def _split(on: Workload, values: Any) -> tuple[list[Any], list[Any]]:
    """Blocks', and the other layers'."""
    pairs = list(zip(on.is_block, values, strict=True))
    return [one for block, one in pairs if block], [one for block, one in pairs if not block]


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data))


def searched(source: Path, on: Workload) -> dict[str, Any]:
    """Its answer, and what the search took."""
    module = search_engine(source)
    counts = counted(module)
    tokens = on.geometry.frames * on.geometry.patches
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(temporary)
        write_profiles(on, folder, tokens)
        engine = module.GalvatronSearchEngine(arguments(on, folder))
        layers = [{"hidden_size": on.experiment.model.hidden_size, "layer_num": on.blocks, "seq_len": tokens}]  # type: ignore[union-attr]
        engine.set_search_engine_info(str(folder), layers, "model")
        began = time.perf_counter()
        engine.initialize_search_engine()
        throughput = engine.parallelism_optimization()
        seconds = time.perf_counter() - began
        found = list(folder.glob("galvatron_config_*.json"))
        config = json.loads(found[0].read_text()) if found else None
    return {
        "seconds": seconds,
        "strategies": len(engine.strategies),
        "strategies_costed": counts["strategies"],
        "programs_solved": counts["programs"],
        "own_samples_per_second": throughput,
        "config": config,
    }


def counted(module: Any) -> dict[str, int]:
    """Counts what the search evaluates: strategies of a layer, and dynamic programs over layers."""
    counts = {"strategies": 0, "programs": 0}
    programming = importlib.import_module("galvatron.core.search_engine.dynamic_programming")
    cost, fit = module.TimeCostModel, programming.DPAlg.fit

    class Counted(cost):  # type: ignore[misc, valid-type]
        def __init__(self, *given: Any, **named: Any) -> None:
            counts["strategies"] += 1
            super().__init__(*given, **named)

    def counted_fit(self: Any, *given: Any, **named: Any) -> Any:
        counts["programs"] += 1
        return fit(self, *given, **named)

    module.TimeCostModel = Counted
    programming.DPAlg.fit = counted_fit
    return counts


if __name__ == "__main__":
    root, experiment_path, lab_path = (Path(argument) for argument in sys.argv[1:])
    print(json.dumps(searched(root, workload_for(experiment_path, lab_path))))
