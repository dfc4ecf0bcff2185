"""Small models and pools for planner tests: every figure plain, none of a real model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsgen.planner.workload import Workload
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.data import ClipSize
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Gpu, Link, Pool
from vdsgen.spec.profile import (
    LayerCosts,
    LayerType,
    ModelProfile,
    PackedActivations,
    Peak,
    Polynomial,
    SelectiveRecomputation,
)

GIB = 1024**3


def polynomial(**terms: int) -> Polynomial:
    return Polynomial(terms=terms)


def layer_costs(parameters: int, hidden: int, width: int, *, is_block: bool) -> LayerCosts:
    return LayerCosts(
        saved_bytes=polynomial(BTS=17 * hidden * width if is_block else 1 * hidden * width),
        output_bytes=polynomial(BTS=hidden * width),
        side_bytes=polynomial(),
        forward_transient_bytes=Peak(candidates=(polynomial(BTS=4 * hidden * width),)),
        backward_transient_bytes=Peak(candidates=(polynomial(BTS=6 * hidden * width),)),
        matmul_flops=polynomial(BTS=2 * parameters),
        attention_flops=polynomial(BTSS=4 * hidden, BTTS=4 * hidden) if is_block else polynomial(),
        forward_traffic_bytes=polynomial(BTS=30 * hidden * width),
        backward_traffic_bytes=polynomial(BTS=60 * hidden * width),
    )


def layer_type(parameters: int, hidden: int, *, is_block: bool) -> LayerType:
    return LayerType(
        parameters=parameters,
        trainable_parameters=parameters,
        parameter_shapes=((hidden, parameters // hidden),),
        is_block=is_block,
        half=layer_costs(parameters, hidden, 2, is_block=is_block),
        single=layer_costs(parameters, hidden, 4, is_block=is_block),
    )


def with_products_kept(layer: LayerType, hidden: int) -> LayerType:
    """The layer, where selective recomputation keeps 7 of a block's 17 units and repeats most traffic."""

    def kept(costs: LayerCosts, width: int) -> LayerCosts:
        unit = hidden * width
        saved = 7 * unit if layer.is_block else 0
        again = costs.saved_bytes.terms["BTS"] - saved
        selective = SelectiveRecomputation(
            recomputed_bytes=polynomial(BTS=again),
            recomputed_matmul_flops=polynomial(),
            recomputed_attention_flops=polynomial(),
            recomputed_traffic_bytes=polynomial(BTS=26 * unit),
            peak_bytes=Peak(candidates=(polynomial(BTS=again + 6 * unit),)),
            saved_bytes=polynomial(BTS=saved),
            forward_transient_bytes=Peak(candidates=(polynomial(BTS=5 * unit),)),
            recomputed_kernels=20,
        )
        halved = polynomial(BTS=7 * hidden if layer.is_block else 0)
        again_packed = polynomial(BTS=again + 7 * hidden * (width - 1))
        packed = PackedActivations(
            output_bytes=polynomial(BTS=hidden),
            packing_traffic_bytes=polynomial(BTS=6 * unit),
            unpacking_traffic_bytes=polynomial(BTS=3 * unit),
            selective=selective.model_copy(
                update={"saved_bytes": halved, "recomputed_bytes": again_packed},
            ),
            selective_packing_traffic_bytes=polynomial(BTS=40 * unit),
        )
        return costs.model_copy(update={"selective": selective, "packed": packed})

    return layer.model_copy(update={"half": kept(layer.half, 2), "single": kept(layer.single, 4)})


def profile(blocks: int, hidden: int = 1024, *, selective: bool = False) -> ModelProfile:
    """Embed, blocks of 20 hidden^2 parameters, Final; `selective`: traced with products kept too."""
    embed = layer_type(4 * hidden * hidden, hidden, is_block=False)
    embed = embed.model_copy(
        update={
            "half": embed.half.model_copy(update={"side_bytes": polynomial(B=24 * hidden)}),
            "single": embed.single.model_copy(update={"side_bytes": polynomial(B=48 * hidden)}),
        }
    )
    types = {
        "embed": embed,
        "block": layer_type(20 * hidden * hidden, hidden, is_block=True),
        "final": layer_type(64 * hidden, hidden, is_block=False),
    }
    if selective:
        types = {name: with_products_kept(layer, hidden) for name, layer in types.items()}
    return ModelProfile(
        model="example",
        architecture_sha256="0" * 64,
        torch_version="none",
        layer_types=types,
        layers=("embed", *["block"] * blocks, "final"),
    )


def pool(
    gpus: int = 4, memory_gib: float = 24.0, *, nodes: int = 1, bf16: bool = True, **changes: Any
) -> Pool:
    return Pool(
        name="example",
        gpu=Gpu(
            memory_gib=memory_gib,
            fp32_tflops=30.0,
            fp16_tflops=120.0,
            bf16_tflops=120.0 if bf16 else None,
            memory_bandwidth_gb_per_second=900.0,
        ),
        nodes=nodes,
        gpus_per_node=gpus,
        intra_node=Link(bandwidth_gb_per_second=20.0, latency_microseconds=10.0),
        inter_node=Link(bandwidth_gb_per_second=5.0, latency_microseconds=20.0) if nodes > 1 else None,
        host_memory_gib=128.0,
        **changes,
    )


def experiment(
    blocks: int = 8,
    hidden: int = 1024,
    *,
    global_batch_size: int = 16,
    constraints: Mapping[str, Any] | None = None,
    frames: int = 16,
    size: int = 256,
    buckets: tuple[tuple[int, int, int], ...] = (),
    **training: Any,
) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "example",
            "model": Vdt(
                in_channels=192, patch_size=2, hidden_size=hidden, depth=blocks, heads=16,
                mlp_hidden_size=4 * hidden, condition="class",
            ),
            "data": {
                "videos": "clips", "frames": frames, "height": size, "width": size,
                "buckets": tuple(
                    ClipSize(frames=frames, height=height, width=width) for frames, height, width in buckets
                ),
            },
            "training": {"global_batch_size": global_batch_size, "steps": 100, **training},
            "constraints": constraints or {},
        }
    )  # fmt: skip


def workload(
    blocks: int = 8,
    hidden: int = 1024,
    *,
    on: Pool | None = None,
    selective: bool = False,
    **changes: Any,
) -> Workload:
    return Workload(
        experiment=experiment(blocks, hidden, **changes),
        pool=on or pool(),
        gpu_name="example-gpu",
        profile=profile(blocks, hidden, selective=selective),
    )
