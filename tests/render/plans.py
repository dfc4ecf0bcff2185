"""Plans and experiments built by hand, and strategies that draw any valid ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from vdsgen.spec.architecture import Vdt
from vdsgen.spec.data import Autoencoder, Data, SpaceToDepth, TextEncoder
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Gpu, Link, Pool
from vdsgen.spec.optimization import AdamW, LossScaling, Schedule
from vdsgen.spec.plan import (
    ActivationCheckpointing,
    Batch,
    Inputs,
    Parallel,
    Plan,
    PlannedModel,
    Precision,
    Predicted,
    Rejected,
    Search,
    Stage,
    StageMemory,
    Zero,
)
from vdsgen.spec.training import Diffusion, Training

GIB = 1024**3


def small_experiment(**training: Any) -> Experiment:
    return Experiment(
        name="small",
        model=Vdt(
            name="vdt-small",
            in_channels=192,
            patch_size=2,
            hidden_size=64,
            depth=4,
            heads=4,
            mlp_hidden_size=128,
            condition="class",
        ),
        data=Data(videos="data/clips", frames=8, height=64, width=64),
        training=Training(**{"global_batch_size": 8, "steps": 10, **training}),
    )


def pool_of(nodes: int, gpus_per_node: int, hosts: tuple[str, ...] | None = None, **changes: Any) -> Pool:
    link = Link(bandwidth_gb_per_second=25.0, latency_microseconds=5.0)
    return Pool(
        **{
            "name": "pool",
            "gpu": Gpu(
                memory_gib=24.0, fp32_tflops=35.6, fp16_tflops=71.0, memory_bandwidth_gb_per_second=936.0
            ),
            "nodes": nodes,
            "gpus_per_node": gpus_per_node,
            "intra_node": link,
            "inter_node": link if nodes > 1 else None,
            "host_memory_gib": 128.0,
            "hosts": hosts,
            **changes,
        }
    )


def plan_of(
    pipeline: int = 2,
    data: int = 2,
    zero_stage: int = 1,
    dtype: Any = "fp16",
    accumulation_dtype: Any = None,
    micro_batch_size: int = 1,
    accumulation: int = 2,
    interval: int = 1,
    depth: int = 4,
    pool: Pool | None = None,
    tensor: int = 1,
    sequence: int = 1,
    **changes: Any,
) -> Plan:
    layers, world = depth + 2, pipeline * data * tensor * sequence
    bounds = [round(index * layers / pipeline) for index in range(pipeline + 1)]
    memory = StageMemory(
        parameters_bytes=3 * GIB,
        gradients_bytes=2 * GIB,
        optimizer_bytes=6 * GIB,
        activations_bytes=5 * GIB,
        workspace_bytes=GIB // 2,
        communication_bytes=GIB // 4,
        reserve_bytes=2 * GIB,
        peak_bytes=18 * GIB + GIB // 4,
    )
    scaled = dtype == "fp16"
    return Plan(
        **{
            "generator": "vdsgen 0.0.0",
            "inputs": Inputs(
                experiment_sha256="e" * 64,
                lab_sha256="1" * 64,
                profile_sha256="f" * 64,
                pool=pool or pool_of(1, world),
            ),
            "model": PlannedModel(
                name="vdt-small", parameters=1_234_567, trainable_parameters=1_234_567, layers=layers
            ),
            "pool": (pool or pool_of(1, 1)).name,
            "parallel": Parallel(
                world_size=world,
                pipeline_parallel_size=pipeline,
                data_parallel_size=data,
                tensor_parallel_size=tensor,
                sequence_parallel_size=sequence,
            ),
            "batch": Batch(
                micro_batch_size=micro_batch_size,
                gradient_accumulation_steps=accumulation,
                global_batch_size=micro_batch_size * accumulation * data,
            ),
            "zero": Zero(
                stage=zero_stage, reduce_bucket_elements=5_000_000, allgather_bucket_elements=4_000_000
            ),
            "activation_checkpointing": ActivationCheckpointing(interval=interval),
            "precision": Precision(
                dtype=dtype,
                gradient_accumulation_dtype=accumulation_dtype or dtype,
                initial_loss_scale=512 if scaled else None,
                loss_scale_window=2000 if scaled else None,
            ),
            "stages": tuple(
                Stage(
                    index=index,
                    layers=(bounds[index], bounds[index + 1]),
                    memory=memory,
                    capacity_bytes=24 * GIB,
                    forward_seconds=0.01 * (index + 1),
                    backward_seconds=0.03,
                )
                for index in range(pipeline)
            ),
            "predicted": Predicted(
                step_seconds=2.5,
                samples_per_second=1.6,
                bubble_fraction=0.2,
                communication_fraction=0.05,
                model_flops_utilization=0.31,
            ),
            "reasons": ("It is the fastest of 3 plans that fit.",),
            "search": Search(
                candidates=12,
                feasible=3,
                rejected=(
                    Rejected(
                        reason="out_of_memory", count=9, detail="Without checkpoints.", nearest={"gib": 1.5}
                    ),
                ),
            ),
            **changes,
        }
    )


# Free text that has tripped templates, YAML readers and shells; control characters are refused by the spec.
AWKWARD_PATHS = st.sampled_from(
    [
        "{{ 7 * 7 }}",
        "{% raw %}",
        "$(touch hacked)",
        "`id`",
        "a b'c\"d",
        "12:30",
        "1e5",
        "0x1F",
        "no",
        "~",
        "#x",
        "- a",
        "key: value",
        "ünïcode \N{SNOWMAN}",
        "\N{LINE SEPARATOR}x\N{NEXT LINE}",
        "\\n",
        "%TAG",
        "&a *a !!python",
    ]
)
PATHS = AWKWARD_PATHS | st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\x00"), min_size=1, max_size=40
)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
POSITIVE = st.floats(1e-12, 1e12, allow_nan=False, allow_infinity=False)
DTYPES: st.SearchStrategy[Dtype] = st.sampled_from(["fp32", "bf16", "fp16"])


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    steps = draw(st.integers(1, 10**6))
    autoencoder = Autoencoder(
        codec="autoencoder", path=draw(PATHS), channels=draw(st.integers(1, 64)), spatial_factor=8
    )
    return Experiment(
        name=draw(NAMES),
        model=Vdt(
            name=draw(NAMES),
            in_channels=4,
            patch_size=2,
            hidden_size=64,
            depth=4,
            heads=4,
            mlp_hidden_size=128,
        ),
        data=Data(
            videos=draw(PATHS),
            frames=draw(st.integers(1, 64)),
            height=64,
            width=128,
            frame_rate=draw(st.none() | POSITIVE),
            latents=draw(st.just(autoencoder) | st.builds(SpaceToDepth, factor=st.sampled_from([1, 2, 8]))),
            text_encoder=draw(st.none() | st.builds(TextEncoder, path=PATHS)),
        ),
        training=Training(
            global_batch_size=draw(st.integers(1, 4096)),
            steps=steps,
            precision=draw(st.sampled_from(["auto", "fp32", "bf16", "fp16"])),
            gradient_clipping=draw(st.just(0.0) | POSITIVE),
            optimizer=AdamW(
                learning_rate=draw(POSITIVE), epsilon=draw(POSITIVE), beta2=draw(st.floats(0, 1))
            ),
            schedule=Schedule(
                type=draw(st.sampled_from(["constant", "linear", "cosine"])),
                warmup_steps=draw(st.integers(0, steps)),
            ),
            loss_scaling=LossScaling(initial_loss_scale=2 ** draw(st.integers(0, 24))),
            diffusion=Diffusion(shift=draw(st.one_of(st.just("resolution"), POSITIVE))),
        ),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    pipeline = draw(st.sampled_from([1, 2, 4]))
    dtype = draw(DTYPES)
    nodes = draw(st.sampled_from([1, 2]))
    hosts = draw(st.none() | st.just(tuple(f"node-{index}" for index in range(nodes))))
    world_size = nodes * 4
    return plan_of(
        pipeline=pipeline,
        data=world_size // pipeline,
        zero_stage=draw(st.integers(0, 1 if pipeline > 1 else 3)),
        dtype=dtype,
        accumulation_dtype=draw(st.sampled_from([dtype, "fp32"])),
        micro_batch_size=draw(st.integers(1, 8)),
        accumulation=draw(st.integers(1, 64)),
        interval=draw(st.integers(0, 4)),
        pool=pool_of(nodes, 4, hosts, name=draw(NAMES)),
        reasons=tuple(draw(st.lists(PATHS, max_size=3))),
    )
