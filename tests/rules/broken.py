"""A configuration that obeys every rule, and for each rule what breaks it."""

from __future__ import annotations

from typing import Any

from vdsgen.rules import facts as groups
from vdsgen.rules.facts import Facts
from vdsgen.rules.removed import GONE
from vdsgen.units import GIB

GIVEN = frozenset(
    {
        "/train_batch_size", "/zero_optimization", "/zero_optimization/stage", "/bf16", "/bf16/enabled",
        "/gradient_clipping", "/optimizer", "/optimizer/type", "/optimizer/params",
        "/scheduler", "/scheduler/type", "/scheduler/params",
    }
)  # fmt: skip

GOOD = Facts(
    world_size=4,
    pipeline_parallel_size=1,
    data_parallel_size=4,
    tensor_parallel_size=1,
    sequence_parallel_size=1,
    ulysses_parallel_size=1,
    global_batch_size=16,
    micro_batch_size=1,
    gradient_accumulation_steps=4,
    zero_stage=2,
    activation_checkpoint_interval=3,
    fp16_enabled=False,
    bf16_enabled=True,
    gradient_accumulation_dtype="bf16",
    gpu="rtx-4090",
    gpu_has_fp16=True,
    gpu_has_bf16=True,
    blocks=48,
    stage_blocks=(48,),
    zero=groups.ZeroFacts(
        reduce_scatter=True,
        contiguous_gradients=True,
        overlap_comm=False,
        reduce_bucket_elements=1000,
        allgather_bucket_elements=1000,
        compute_grad_norm=True,
        parameter_alignment=False,
        elastic_checkpoint=False,
        legacy_stage1=False,
        prefetch_bucket_elements=1000,
        max_live_parameters=1000,
        allgather_sequential=False,
        pipeline_loading_checkpoint=False,
        hpz_partition_size=1,
        quantized_weights=False,
        quantized_nontrainable_weights=False,
        quantized_gradients=False,
        save_muon_momentum_buffer_in_memory=False,
    ),
    offload=groups.OffloadFacts(
        optimizer="none",
        optimizer_nvme_path="",
        optimizer_pin_memory=True,
        optimizer_ratio=1.0,
        optimizer_buffer_count=4,
        optimizer_pipelined=False,
        optimizer_fast_init=False,
        super_offload=False,
        cpuadam_cores_fraction=0.8,
        parameters="none",
        parameter_nvme_path="",
        parameter_pin_memory=True,
    ),
    zenflow=groups.ZenFlowFacts(present=False),
    precision=groups.PrecisionFacts(
        loss_scale=0.0,
        initial_scale_power=9,
        loss_scale_window=1000,
        hysteresis=2,
        min_loss_scale=1,
        fp16_master_weights_and_grads=False,
        bf16_master_weights_and_grads=False,
        bf16_optimizer_states=False,
        autocast_enabled=False,
    ),
    optimizer=groups.OptimizerFacts(
        type="AdamW",
        params={"lr": 1e-4, "betas": [0.9, 0.95]},
        client=False,
        allow_untested=False,
        force_ds_cpu_optimizer=True,
        gradient_clipping=1.0,
    ),
    scheduler=groups.SchedulerFacts(
        type="WarmupLR", params={"warmup_max_lr": 1e-4, "warmup_num_steps": 100}, client=False
    ),
    communication=groups.CommunicationFacts(
        dtype="", sequence_parallel_dtype="fp32", prescale_gradients=False, predivide_factor=1.0,
        allreduce_op="mean",
    ),
    pipeline=groups.PipelineFacts(
        is_pipeline=False, managed_gradient_accumulation=True, partition_method="uniform", dual_pipe_v=False,
        trainer_reads_section=False,
    ),
    checkpointing=groups.CheckpointingFacts(
        partition_activations=False, contiguous_memory_optimization=False, number_checkpoints=0,
        synchronize_checkpoint_boundary=False, profile=False, configured=False,
    ),
    saving=groups.SavingFacts(
        tag_validation="Warn", load_universal=False, writer=False, resumed_data_parallel_size=4
    ),
    compile=groups.CompileFacts(
        deepcompile=False, autoep_non_moe=False, offload_activation=False, offload_opt_states=False,
        offload_parameters=False,
    ),
    tensor_parallel=groups.TensorParallelFacts(autotp_size=0, tp_size=1),
    monitoring=groups.MonitoringFacts(
        wall_clock_breakdown=False, memory_breakdown=False, flops_profiler=False, comms_logger=False
    ),
    model=groups.ModelFacts(
        parameters=2_000_000_000, trainable_parameters=2_000_000_000, heads=16, key_value_heads=16,
        mlp_hidden_size=4096,
        tokens=4096, patch_rows=(16, 32), latent_frames=(16, 16), mixture_of_experts=False,
    ),
    machine=groups.MachineFacts(
        accelerator="cuda", gpu_memory_bytes=24 * GIB, gpus_per_node=4, torch_version=(2, 13),
        launcher="pdsh", gpus_of_nodes=(4,),
    ),
    given=GIVEN,
    automatic=frozenset(),
)  # fmt: skip


def changed(changes: dict[str, Any]) -> Facts:
    """GOOD with facts replaced by name, those of a group as `group.name`; `+given` adds JSON pointers."""
    made = GOOD
    for name, value in changes.items():
        group, _, inner = name.partition(".")
        if name == "+given":
            made = made._replace(given=GIVEN | set(value.split()))
        elif inner:
            made = made._replace(**{group: getattr(made, group)._replace(**{inner: value})})
        else:
            made = made._replace(**{name: value})
    return made


PIPELINE = {
    "pipeline_parallel_size": 2, "data_parallel_size": 2, "global_batch_size": 8, "zero_stage": 1,
    "pipeline.is_pipeline": True, "stage_blocks": (24, 24), "saving.resumed_data_parallel_size": 2,
}  # fmt: skip
BF16_OPTIMIZER = {"zero_stage": 1, "gradient_accumulation_dtype": "fp32"}
FP16 = {"fp16_enabled": True, "bf16_enabled": False, "gradient_accumulation_dtype": "fp16"}
STAGE_3 = {"zero_stage": 3}
NVME = {"offload.optimizer": "nvme", "offload.optimizer_nvme_path": "/mnt", "zero_stage": 3}
DEEPCOMPILE = {"compile.deepcompile": True}
SEQUENCE = {
    "sequence_parallel_size": 2, "ulysses_parallel_size": 2, "data_parallel_size": 2, "global_batch_size": 8,
    "saving.resumed_data_parallel_size": 2,
}  # fmt: skip
ZENFLOW = {
    "zenflow.present": True, "zenflow.select_strategy": "step", "zenflow.select_interval": 8,
    "zenflow.update_interval": 4, "offload.optimizer": "cpu",
}  # fmt: skip

Broken = tuple[dict[str, Any], tuple[str, ...]]

LAYOUT: dict[str, Broken] = {
    "batch-positive": ({"micro_batch_size": 0, "global_batch_size": 0}, ("0",)),
    "batch-product": ({"global_batch_size": 17}, ("17", "16")),
    "batch-given": ({"given": frozenset({"/bf16"})}, ("train_batch_size",)),
    "batch-numbers": ({"automatic": frozenset({"/train_batch_size"})}, ("train_batch_size", '"auto"')),
    "pipeline-filled": (PIPELINE | {"gradient_accumulation_steps": 1}, ("1", "2", "50%")),
    "pipeline-divides-world": ({"pipeline_parallel_size": 3}, ("3", "4")),
    "layout-fills-world": (SEQUENCE | {"world_size": 8}, ("8", "4", "sequence 2")),
    "pipeline-zero": (PIPELINE | {"zero_stage": 2}, ("2",)),
    "pipeline-enough-blocks": (PIPELINE | {"blocks": 1}, ("1", "2")),
    "stage-has-block": ({"stage_blocks": (48, 0)}, ("stage 1",)),
    "interval-within-blocks": ({"activation_checkpoint_interval": 49}, ("49", "48")),
    "pipeline-bf16-sums": (PIPELINE | {"zero_stage": 0}, ("4", "bf16")),
    "pipeline-overlap-comm": (PIPELINE | {"zero.overlap_comm": True}, ("overlap_comm", "1")),
    "pipeline-managed-accumulation": (
        PIPELINE | {"pipeline.managed_gradient_accumulation": False},
        ("managed_gradient_accumulation",),
    ),
    "managed-accumulation-overlap": (
        {"pipeline.managed_gradient_accumulation": False, "zero_stage": 1, "zero.overlap_comm": True},
        ("overlap_comm", "1"),
    ),
    "pipeline-partition-method": (PIPELINE | {"pipeline.partition_method": "profile"}, ("profile",)),
    "dual-pipe-filled": (
        PIPELINE | {"pipeline.dual_pipe_v": True, "gradient_accumulation_steps": 2},
        ("2",),
    ),
    "pipeline-unread-keys": (
        PIPELINE | {"+given": "/pipeline /pipeline/stages /pipeline/seed_layers"},
        ("pipeline.stages", "seed_layers"),
    ),
    "pipeline-section-unused": ({"+given": "/pipeline"}, ("PipelineModule",)),
    "autotp-sizes-agree": (
        {"tensor_parallel.autotp_size": 4, "tensor_parallel.tp_size": 2}, ("4", "2"),
    ),
    "autotp-divides-world": ({"tensor_parallel.autotp_size": 3}, ("3", "4")),
    "autotp-pipeline": (PIPELINE | {"tensor_parallel.autotp_size": 2}, ("2",)),
    "autotp-heads": (
        {"tensor_parallel.autotp_size": 4, "model.key_value_heads": 2}, ("4", "2"),
    ),
    "autotp-liger": (
        {
            "tensor_parallel.autotp_size": 4,
            "tensor_parallel.vocab_parallel_ce_backend": "liger",
            "tensor_parallel.vocab_parallel_lm_head": False,
        },
        ("liger",),
    ),
    "tensor-heads": ({"tensor_parallel_size": 3}, ("3", "16")),
    "tensor-columns": ({"tensor_parallel_size": 3}, ("3", "4096")),
    "tensor-within-node": ({"tensor_parallel_size": 8}, ("8", "4")),
    "sequence-rows": (SEQUENCE | {"model.patch_rows": (16, 15)}, ("2", "15")),
    "sequence-frames": (SEQUENCE | {"model.latent_frames": (5,)}, ("2", "5")),
    "sequence-within-node": (SEQUENCE | {"tensor_parallel_size": 4}, ("2", "4")),
    "sequence-divides-world": ({"ulysses_parallel_size": 3}, ("3", "4")),
    "sequence-heads": ({"ulysses_parallel_size": 3}, ("3", "16")),
    "sequence-key-value-heads": (SEQUENCE | {"model.key_value_heads": 3}, ("2", "3")),
    "sequence-tokens": (SEQUENCE | {"model.tokens": 4095}, ("2", "4095")),
    "experts-zero-3": (STAGE_3 | {"model.mixture_of_experts": True}, ("3",)),
    "slurm-equal-nodes": (
        {"machine.launcher": "slurm", "machine.gpus_of_nodes": (3, 1)}, ("3, 1",),
    ),
}  # fmt: skip

PRECISION: dict[str, Broken] = {
    "one-half-precision": ({"fp16_enabled": True}, ("fp16", "bf16")),
    "gpu-has-fp16": (FP16 | {"gpu_has_fp16": False}, ("rtx-4090",)),
    "gpu-has-bf16": ({"gpu_has_bf16": False}, ("rtx-4090",)),
    "accumulation-needs-zero": (
        {"zero_stage": 0, "gradient_accumulation_dtype": "fp32"}, ("bf16", "fp32"),
    ),
    "accumulation-keeps-precision": ({"gradient_accumulation_dtype": "fp16"}, ("bf16", "fp16")),
    "parameter-dtype": ({"precision.parameter_dtype": "fp16"}, ("fp16", "bf16")),
    "half-precision-used": (
        {"bf16_enabled": False, "gradient_accumulation_dtype": "fp32"}, ("fp32", "rtx-4090"),
    ),
    "fp16-auto-cast-off": ({"precision.fp16_auto_cast": True}, ("auto_cast", "enabled")),
    "autocast-fp16-stages": (
        PIPELINE
        | {"zero_stage": 0, "precision.autocast_enabled": True, "precision.autocast_dtype": "fp16"}, ("2",),
    ),
    "autocast-with-half-precision": ({"precision.autocast_enabled": True}, ("bf16",)),
    "bf16-keys-unread": (
        {"+given": "/bf16/immediate_grad_update"}, ("bf16.immediate_grad_update",),
    ),
    "fp16-keys-unread": ({"+given": "/fp16 /fp16/hysteresis"}, ("fp16.hysteresis",)),
    "fp16-master-weights-zero": (
        {"precision.fp16_master_weights_and_grads": True, "zero_stage": 0}, ("0",),
    ),
    "bf16-master-weights-zero": (
        {"precision.bf16_master_weights_and_grads": True, "zero_stage": 0}, ("0",),
    ),
    "bf16-states-zero": ({"precision.bf16_optimizer_states": True, "zero_stage": 0}, ("0",)),
    "bf16-states-master-weights": (
        {"precision.bf16_optimizer_states": True}, ("bf16_master_weights_and_grads",),
    ),
    "master-weights-exclusive": (
        {
            "precision.fp16_master_weights_and_grads": True,
            "precision.bf16_master_weights_and_grads": True,
        },
        ("fp16_master_weights_and_grads", "bf16_master_weights_and_grads"),
    ),
    "fp16-master-weights-cpu-adam": (
        FP16 | {"precision.fp16_master_weights_and_grads": True}, ("without optimizer offload",),
    ),
    "bf16-master-weights-cpu-adam": (
        {
            "precision.bf16_master_weights_and_grads": True,
            "offload.optimizer": "cpu",
            "optimizer.params": {"lr": 1e-4, "torch_adam": True},
        },
        ("torch_adam", "AdamW"),
    ),
    "loss-scale-not-negative": ({"precision.loss_scale": -2.0}, ("-2",)),
    "loss-scale-start-finite": (FP16 | {"precision.initial_scale_power": 64}, ("64", "63")),
    "loss-scale-window": (FP16 | {"precision.loss_scale_window": 0}, ("0",)),
    "loss-scale-minimum": (FP16 | {"precision.min_loss_scale": 0}, ("0",)),
    "loss-scale-initial": (FP16 | {"precision.initial_scale_power": 16}, ("16", "8 skipped steps")),
    "loss-scale-above-minimum": (FP16 | {"precision.min_loss_scale": 1024}, ("1024", "512")),
    "loss-is-scaled": (FP16 | {"precision.loss_scale": 1.0}, ("1",)),
    "loss-scale-static-keys": (
        FP16 | {"precision.loss_scale": 128.0, "+given": "/fp16/hysteresis"}, ("hysteresis", "128"),
    ),
    "loss-scale-hysteresis": (
        FP16 | {"zero_stage": 0, "+given": "/fp16/hysteresis"}, ("hysteresis", "0"),
    ),
}  # fmt: skip

ZERO: dict[str, Broken] = {
    "zero-stage-exists": ({"zero_stage": 4}, ("4",)),
    "allgather-bucket-even": ({"zero.allgather_bucket_elements": 1001}, ("1001",)),
    "zero-contiguous-offload": (
        {"zero.contiguous_gradients": False, "offload.optimizer": "cpu"}, ("cpu",),
    ),
    "zero-legacy-stage-1": ({"zero.legacy_stage1": True}, ("legacy_stage1",)),
    "grad-norm-stage": (STAGE_3 | {"zero.compute_grad_norm": False}, ("3",)),
    "grad-norm-clipping": ({"zero.compute_grad_norm": False}, ("1.0",)),
    "grad-norm-zenflow": (ZENFLOW | {"zero.compute_grad_norm": False}, ("ZenFlow",)),
    "grad-norm-offload": (
        {"zero.compute_grad_norm": False, "offload.optimizer": "cpu"}, ("cpu",),
    ),
    "grad-norm-bf16-optimizer": (BF16_OPTIMIZER | {"zero.compute_grad_norm": False}, ("fp32",)),
    "zero-3-elastic-checkpoint": (STAGE_3 | {"zero.elastic_checkpoint": True}, ("3",)),
    "zero-loading-in-turn": ({"zero.pipeline_loading_checkpoint": True}, ("2",)),
    "zero-stage-3-keys": (
        {"+given": "/zero_optimization/sub_group_size /zero_optimization/leaf_module"},
        ("zero_optimization.sub_group_size", "are", "2"),
    ),
    "zero-stage-1-2-keys": (
        STAGE_3 | {"+given": "/zero_optimization/round_robin_gradients"}, ("round_robin_gradients", "is"),
    ),
    "zero-off-keys": (
        {"zero_stage": 0, "+given": "/zero_optimization/reduce_scatter"}, ("reduce_scatter", "0"),
    ),
    "bf16-optimizer-keys": (
        BF16_OPTIMIZER | {"+given": "/zero_optimization/reduce_bucket_size"}, ("reduce_bucket_size",),
    ),
    "gathering-keys-unread": ({"+given": "/disable_allgather"}, ("disable_allgather",)),
    "zero-sequential-prefetch": (
        STAGE_3
        | {"zero.allgather_sequential": True, "+given": "/zero_optimization/stage3_prefetch_bucket_size"},
        ("1000",),
    ),
    "zeropp-stage-3": (
        {"zero.quantized_weights": True, "zero.hpz_partition_size": 2},
        ("zero_quantized_weights", "zero_hpz_partition_size", "2"),
    ),
    "hpz-divides-world": (STAGE_3 | {"zero.hpz_partition_size": 3}, ("3", "4")),
    "hpz-smaller-than-world": (STAGE_3 | {"zero.hpz_partition_size": 4}, ("4",)),
    "hpz-in-a-node": (
        STAGE_3 | {"zero.hpz_partition_size": 2, "machine.gpus_per_node": 1}, ("2", "1"),
    ),
    "quantized-gradients-whole-nodes": (
        STAGE_3 | {"zero.quantized_gradients": True, "machine.gpus_per_node": 3}, ("4", "3"),
    ),
    "quantized-gradients-scattered": (
        STAGE_3 | {"zero.quantized_gradients": True, "zero.reduce_scatter": False}, ("reduce_scatter",),
    ),
    "quantized-weights-autocast": (
        STAGE_3 | {"zero.quantized_weights": True, "precision.autocast_enabled": True},
        ("torch_autocast",),
    ),
    "offload-optimizer-zero": ({"zero_stage": 0, "offload.optimizer": "cpu"}, ("cpu", "0")),
    "offload-parameters-stage-3": ({"offload.parameters": "cpu"}, ("cpu", "2")),
    "offload-ratio-stage-3": ({"offload.optimizer_ratio": 0.5}, ("0.5", "2")),
    "offload-ratio-range": ({"offload.optimizer_ratio": 1.5}, ("1.5",)),
    "offload-ratio-cpu-adam": (
        STAGE_3
        | {"offload.optimizer_ratio": 0.5, "offload.optimizer": "cpu"}
        | {"optimizer.params": {"torch_adam": True}},
        ("0.5", "torch_adam"),
    ),
    "offload-client-optimizer": (
        {"offload.optimizer": "cpu", "optimizer.client": True}, ("cpu", "training code"),
    ),
    "offload-nvme-stage-3": (NVME | {"zero_stage": 2}, ("nvme", "2")),
    "offload-nvme-bf16-optimizer": (NVME | BF16_OPTIMIZER, ("nvme", "BF16_Optimizer")),
    "offload-nvme-path": (NVME | {"offload.optimizer_nvme_path": ""}, ("offload_optimizer",)),
    "offload-pinned": (
        {"offload.optimizer": "cpu", "offload.optimizer_pin_memory": False}, ("offload_optimizer",),
    ),
    "offload-nvme-keys": (
        {"offload.optimizer": "cpu", "+given": "/zero_optimization/offload_optimizer/nvme_path"},
        ("offload_optimizer.nvme_path",),
    ),
    "offload-fast-init": (NVME | {"offload.optimizer_fast_init": True}, ("none",)),
    "offload-nvme-buffers": (NVME | {"offload.optimizer_buffer_count": 3}, ("3", "4")),
    "super-offload-stage-3": ({"offload.super_offload": True}, ("2",)),
    "super-offload-cuda": (
        STAGE_3 | {"offload.super_offload": True, "machine.accelerator": "xpu"}, ("xpu",),
    ),
    "super-offload-cores": (
        STAGE_3 | {"offload.super_offload": True, "offload.cpuadam_cores_fraction": 0.0}, ("0",),
    ),
    "super-offload-cores-unused": (
        {"+given": "/zero_optimization/offload_optimizer/cpuadam_cores_perc"}, ("cpuadam_cores_perc",),
    ),
    "zenflow-offload": (ZENFLOW | {"offload.optimizer": "none"}, ("offload",)),
    "zenflow-optimizer": (ZENFLOW | {"zero_stage": 0}, ("ZeRO",)),
    "zenflow-strategy": (ZENFLOW | {"zenflow.select_strategy": "often"}, ("often",)),
    "zenflow-auto-interval": (ZENFLOW | {"zenflow.select_strategy": "auto"}, ("auto", "8")),
    "zenflow-interval": (ZENFLOW | {"zenflow.select_interval": "auto"}, ("step", "auto")),
    "zenflow-update-positive": (ZENFLOW | {"zenflow.update_interval": 0}, ("0",)),
    "zenflow-select-covers-update": (ZENFLOW | {"zenflow.select_interval": 2}, ("2", "4")),
    "zenflow-offload-overlap": (ZENFLOW | {"zenflow.offload": True}, ("overlap_comm",)),
    "zenflow-torch": (ZENFLOW | {"machine.torch_version": (2, 0)}, ("2.0",)),
    "zenflow-optimizer-params": (ZENFLOW | {"optimizer.params": {"torch_adam": True}}, ("torch_adam",)),
    "zenflow-accumulation": (ZENFLOW | {"zenflow.update_interval": 8}, ("4", "8")),
    "reduce-bucket-gpu": (
        {"zero.reduce_bucket_elements": 1_000_000_000, "zero.overlap_comm": True}, ("3.7 GiB", "24 GiB"),
    ),
    "reduce-bucket-model": (
        {"zero.reduce_bucket_elements": 5_000, "model.trainable_parameters": 3_000}, ("5000", "3000"),
    ),
    "allgather-bucket-model": ({"model.trainable_parameters": 900}, ("1000", "900")),
    "zero-3-releases": (
        STAGE_3 | {"zero.max_live_parameters": 2_000_000_000}, ("2000000000",),
    ),
    "zero-3-small-model": (STAGE_3 | {"model.parameters": 200_000_000}, ("3.0 GiB", "24")),
    "zero-ranks": ({"data_parallel_size": 1, "world_size": 1}, ("2",)),
}  # fmt: skip

REST: dict[str, Broken] = {
    "communication-dtype": ({"communication.dtype": "int8"}, ("int8",)),
    "sequence-communication-dtype": ({"communication.sequence_parallel_dtype": "int8"}, ("int8",)),
    "allreduce-operation": ({"communication.allreduce_op": "max"}, ("max",)),
    "allreduce-sum-stage-3": (STAGE_3 | {"communication.allreduce_op": "sum"}, ("sum", "3")),
    "allreduce-sum-zenflow": (ZENFLOW | {"communication.allreduce_op": "sum"}, ("sum", "ZenFlow")),
    "allreduce-sum-deepcompile": (
        DEEPCOMPILE | {"communication.allreduce_op": "sum"}, ("sum", "DeepCompile"),
    ),
    "predivide-zero": ({"zero_stage": 0, "communication.predivide_factor": 0.0}, ("0",)),
    "predivide-reduce-scatter": ({"communication.predivide_factor": 2.0}, ("2", "reduce_scatter")),
    "prescale-reduce-scatter": ({"communication.prescale_gradients": True}, ("2", "reduce_scatter")),
    "predivide-prescale": (
        {"zero_stage": 1, "communication.predivide_factor": 3.0, "communication.prescale_gradients": True},
        ("3",),
    ),
    "communication-dtype-sequence": (SEQUENCE | {"communication.dtype": "bf16"}, ("bf16", "fp32", "2")),
    "compression-once-a-step": ({"communication.gradient_compression": "int8"}, ("int8", "ZeRO-2")),
    "communication-dtype-precise": ({"communication.dtype": "fp16"}, ("bf16", "fp16", "range")),
    "optimizer-exists": ({"optimizer.type": "sgd"}, ("sgd",)),
    "optimizer-removed": ({"optimizer.type": "OneBitAdam"}, ("OneBitAdam",)),
    "optimizer-clipping": ({"optimizer.params": {"max_grad_norm": 0.7}}, ("0.7",)),
    "gradient-clipping-given": ({"given": GIVEN - {"/gradient_clipping"}}, ("norm of 1",)),
    "optimizer-lamb-scale": (
        FP16
        | {"optimizer.type": "Lamb", "optimizer.allow_untested": True, "precision.loss_scale": 128.0},
        ("128",),
    ),
    "optimizer-tested-with-zero": ({"optimizer.type": "SGD"}, ("SGD", "2")),
    "zero-needs-optimizer": (
        {"optimizer.type": "", "optimizer.params": {}, "scheduler.type": "", "scheduler.params": {}},
        ("2",),
    ),
    "optimizer-section-unused": ({"optimizer.client": True}, ("AdamW",)),
    "optimizer-params": ({"optimizer.params": {"fused": True}}, ("FusedAdam", "fused")),
    "optimizer-fused-or-foreach": (
        {"optimizer.params": {"fused": True, "foreach": True, "torch_adam": True}}, ("foreach",),
    ),
    "optimizer-amsgrad": ({"optimizer.params": {"amsgrad": True}}, ("AdamW",)),
    "optimizer-adam-is-adamw": (
        {"optimizer.type": "Adam", "optimizer.params": {"weight_decay": 0.1}}, ("0.1",),
    ),
    "muon-reduce-scatter": (STAGE_3 | {"optimizer.type": "Muon"}, ("Muon", "3")),
    "muon-quantized-gradients": (
        STAGE_3
        | {"optimizer.type": "Muon", "zero.reduce_scatter": False, "zero.quantized_gradients": True},
        ("Muon",),
    ),
    "muon-pipeline": (
        PIPELINE | {"optimizer.type": "Muon", "gradient_accumulation_dtype": "fp32"}, ("Muon",),
    ),
    "muon-momentum-in-memory": ({"zero.save_muon_momentum_buffer_in_memory": True}, ("nvme",)),
    "optimizer-class-params": (
        {"optimizer.type": "Lion", "optimizer.params": {"momentum": 0.9}}, ("Lion", "momentum"),
    ),
    "optimizer-param-values": ({"optimizer.params": {"lr": "1e-4"}}, ("lr", "'1e-4'")),
    "scheduler-class-params": (
        {"scheduler.type": "StepLR", "scheduler.params": {"step": 1}}, ("StepLR", "step_size"),
    ),
    "scheduler-torch-wrapped": (
        {"scheduler.type": "StepLR", "scheduler.params": {"step_size": 1}}, ("StepLR", "2"),
    ),
    "scheduler-param-values": ({"scheduler.params": {"warmup_max_lr": "0.1"}}, ("warmup_max_lr", "'0.1'")),
    "scheduler-exists": ({"scheduler.type": "Warmup"}, ("Warmup",)),
    "scheduler-params-given": (
        {"given": GIVEN - {"/scheduler/params"}, "scheduler.params": {}}, ("WarmupLR",),
    ),
    "scheduler-params-complete": ({"scheduler.type": "WarmupDecayLR"}, ("total_num_steps",)),
    "scheduler-params-known": (
        {"scheduler.params": {"warmup_ratio": 0.1}}, ("WarmupLR", "warmup_ratio"),
    ),
    "scheduler-warmup-positive": ({"scheduler.params": {"warmup_num_steps": 0}}, ("0",)),
    "scheduler-range-step": (
        {"scheduler.type": "LRRangeTest", "scheduler.params": {"lr_range_test_step_size": 0}}, ("0",),
    ),
    "scheduler-cycle": (
        {
            "scheduler.type": "OneCycle",
            "scheduler.params": {"cycle_min_lr": 0, "cycle_max_lr": 1, "cycle_second_step_size": -1},
        },
        ("cycle_second_step_size", "-1"),
    ),
    "scheduler-warmup-one": ({"scheduler.params": {"warmup_num_steps": 1}}, ("1", "2")),
    "scheduler-warmup-type": ({"scheduler.params": {"warmup_type": "cosine"}}, ("cosine", "log")),
    "scheduler-ends-after-warmup": (
        {
            "scheduler.type": "WarmupDecayLR",
            "scheduler.params": {"total_num_steps": 50, "warmup_num_steps": 100, "warmup_max_lr": 1e-4},
        },
        ("50", "100"),
    ),
    "scheduler-peak-given": (
        {"scheduler.type": "WarmupDecayLR", "scheduler.params": {"total_num_steps": 5000}},
        ("0.0001", "0.001"),
    ),
    "scheduler-peak-is-rate": ({"scheduler.params": {"warmup_max_lr": 0.3}}, ("0.3", "0.0001")),
    "scheduler-cycle-betas": (
        {
            "scheduler.type": "OneCycle",
            "scheduler.params": {"cycle_min_lr": 0, "cycle_max_lr": 1e-4},
        },
        ("0.95", "0.8", "0.99"),
    ),
    "scheduler-section-unused": ({"scheduler.client": True}, ("WarmupLR",)),
    "scheduler-needs-optimizer": ({"zero_stage": 0, "optimizer.type": ""}, ("WarmupLR",)),
    "checkpointing-configured": ({"+given": "/activation_checkpointing"}, ("configure",)),
    "checkpointing-contiguous-partitioned": (
        {"checkpointing.configured": True, "checkpointing.contiguous_memory_optimization": True},
        ("partition_activations",),
    ),
    "checkpointing-contiguous-number": (
        {
            "checkpointing.configured": True,
            "checkpointing.contiguous_memory_optimization": True,
            "checkpointing.partition_activations": True,
        },
        ("number_checkpoints",),
    ),
    "checkpointing-partitioned-ranks": ({"checkpointing.partition_activations": True}, ("1",)),
    "checkpointing-timed": (
        {"checkpointing.configured": True, "checkpointing.profile": True}, ("profile",),
    ),
    "checkpoint-tags": ({"saving.tag_validation": "Perhaps"}, ("Perhaps",)),
    "checkpoint-parallel-write": ({"saving.parallel_write_pipeline": "yes"}, ("yes",)),
    "checkpoint-writer-unit": ({"saving.writer": True}, ("data_parallel", "2")),
    "resume-same-ranks": ({"saving.resumed_data_parallel_size": 8}, ("8", "4", "2")),
    "deepcompile-zero": (DEEPCOMPILE | {"zero_stage": 0}, ("0",)),
    "deepcompile-managed-accumulation": (
        DEEPCOMPILE | {"pipeline.managed_gradient_accumulation": False}, ("DeepCompile",),
    ),
    "deepcompile-states-offload": (
        DEEPCOMPILE | STAGE_3 | {"compile.offload_opt_states": True, "offload.optimizer": "cpu"},
        ("cpu",),
    ),
    "deepcompile-activation-offload": (
        DEEPCOMPILE | STAGE_3 | {"compile.offload_activation": True, "compile.offload_parameters": True},
        ("offload_parameters",),
    ),
    "deepcompile-one-offload": (
        DEEPCOMPILE | STAGE_3 | {"compile.offload_opt_states": True, "compile.offload_parameters": True},
        ("offload_opt_states",),
    ),
    "deepcompile-autotp-alone": (
        DEEPCOMPILE | {"compile.passes": ("autotp", "z1"), "tensor_parallel.autotp_size": 2}, ("z1",),
    ),
    "deepcompile-autotp-ranks": (DEEPCOMPILE | {"compile.passes": ("autotp",)}, ("0",)),
    "deepcompile-autosp-stage": (DEEPCOMPILE | {"compile.passes": ("autosp",)}, ("2",)),
    "deepcompile-eager-experts": (DEEPCOMPILE | {"compile.autoep_non_moe": True}, ("autoep_non_moe",)),
    "deepcompile-on": ({"+given": "/compile /compile/double_buffer"}, ("double_buffer",)),
    "steps-per-print-zero": ({"monitoring.steps_per_print": 0}, ("0",)),
    "pipeline-stages-timed": (PIPELINE | {"monitoring.wall_clock_breakdown": True}, ("2",)),
    "pipeline-timed-steps": (
        {"pipeline.is_pipeline": True, "monitoring.flops_profiler": True}, ("flops_profiler", "not set"),
    ),
    "wall-clock-breakdown": ({"monitoring.wall_clock_breakdown": True}, ("true",)),
    "flops-profiler-clock": ({"monitoring.flops_profiler": True}, ("wall_clock_breakdown",)),
    "comms-logger": ({"monitoring.comms_logger": True}, ("true",)),
    "memory-breakdown": ({"monitoring.memory_breakdown": True}, ("true",)),
    "deprecated-beside-new": (
        {"+given": "/zero_optimization/cpu_offload /zero_optimization/offload_optimizer"},
        ("zero_optimization.cpu_offload",),
    ),
    "deprecated-pin-memory": (
        {"+given": "/zero_optimization/cpu_offload_use_pin_memory"}, ("cpu_offload_use_pin_memory",),
    ),
    "bfloat16-beside-bf16": ({"+given": "/bfloat16"}, ("bfloat16",)),
    "auto-is-default": (
        {"automatic": frozenset({"/zero_optimization/reduce_bucket_size"})}, ("reduce_bucket_size",),
    ),
}  # fmt: skip

REMOVED: dict[str, Broken] = {
    f"removed-{key.rpartition('/')[2].replace('_', '-')}": ({"+given": key}, (key.rpartition("/")[2],))
    for key, *_ in GONE
}

BROKEN: dict[str, Broken] = LAYOUT | PRECISION | ZERO | REST | REMOVED
"""For each rule, changes of GOOD that break it (and maybe others), and words of the message."""
