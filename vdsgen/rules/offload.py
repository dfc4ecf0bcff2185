"""Rules on keeping optimizer states and parameters in host memory or on NVMe."""

from __future__ import annotations

from vdsgen.rules.facts import Facts
from vdsgen.rules.keys import are, below, present, removal, setting
from vdsgen.rules.rule import REMOVE, Change, Rule

OPTIMIZER = "/zero_optimization/offload_optimizer"
PARAMETERS = "/zero_optimization/offload_param"
NVME_OPTIMIZER = below(OPTIMIZER, "nvme_path buffer_count pipeline_read pipeline_write fast_init")
NVME_PARAMETERS = below(PARAMETERS, "nvme_path buffer_count buffer_size max_in_cpu")
SUPER, CORES = f"{OPTIMIZER}/super_offload", f"{OPTIMIZER}/cpuadam_cores_perc"
OF_SUPERCHIPS = (SUPER, CORES)

ADAM_TENSORS = 4
"""What Adam swaps for each sub-group: master weight, gradient and two moments."""


def _offloads(facts: Facts) -> bool:
    return facts.offload.optimizer in ("cpu", "nvme")


def _optimizer_without_zero(facts: Facts) -> str | None:
    if facts.zero_stage != 0 or not _offloads(facts):
        return None
    return f"the optimizer is offloaded to {facts.offload.optimizer} at ZeRO stage 0"


def _parameters_below_stage_3(facts: Facts) -> str | None:
    if facts.zero_stage in (None, 3) or facts.offload.parameters in (None, "none"):
        return None
    return f"parameters are offloaded to {facts.offload.parameters} at ZeRO stage {facts.zero_stage}"


def _ratio_below_stage_3(facts: Facts) -> str | None:
    ratio = facts.offload.optimizer_ratio
    if ratio is None or ratio >= 1 or facts.zero_stage in (None, 3):
        return None
    return f"offload_optimizer.ratio is {ratio} at ZeRO stage {facts.zero_stage}"


def _ratio_in_range(facts: Facts) -> str | None:
    ratio = facts.offload.optimizer_ratio
    return None if ratio is None or 0 <= ratio <= 1 else f"offload_optimizer.ratio is {ratio}"


def _uses_cpu_adam(facts: Facts) -> bool | None:
    """Whether the engine builds DeepSpeedCPUAdam from the file (runtime/engine.py:2374-2400)."""
    name, params = facts.optimizer.type, facts.optimizer.params
    if name is None or facts.optimizer.client is not False:
        return None
    return name.lower() in ("adam", "adamw") and not (params or {}).get("torch_adam")


def _ratio_needs_cpu_adam(facts: Facts) -> str | None:
    ratio = facts.offload.optimizer_ratio
    if ratio is None or not 0 <= ratio < 1 or facts.zero_stage != 3 or not _offloads(facts):
        return None
    if _uses_cpu_adam(facts) is not False:
        return None
    name = facts.optimizer.type
    torch_adam = " with torch_adam" if (facts.optimizer.params or {}).get("torch_adam") else ""
    return f"offload_optimizer.ratio is {ratio}, and the optimizer {name}{torch_adam}"


def _client_optimizer(facts: Facts) -> str | None:
    if (
        not _offloads(facts)
        or not facts.optimizer.client
        or facts.optimizer.force_ds_cpu_optimizer is not True
    ):
        return None
    return f"the optimizer is offloaded to {facts.offload.optimizer}, and comes from the training code"


def _nvme_below_stage_3(facts: Facts) -> str | None:
    if facts.offload.optimizer != "nvme" or facts.zero_stage not in (1, 2) or facts.uses_bf16_optimizer:
        return None
    return (
        f"the optimizer is offloaded to nvme at ZeRO stage {facts.zero_stage}, which keeps it in host memory"
    )


def _nvme_with_bf16_optimizer(facts: Facts) -> str | None:
    if facts.offload.optimizer != "nvme" or facts.zero_stage != 1 or not facts.uses_bf16_optimizer:
        return None
    return "the optimizer is offloaded to nvme, and BF16_Optimizer keeps it on the GPU"


def _nvme_has_a_path(facts: Facts) -> str | None:
    if facts.zero_stage != 3:
        return None
    offload = facts.offload
    missing = [
        name
        for name, device, path in (
            ("offload_optimizer", offload.optimizer, offload.optimizer_nvme_path),
            ("offload_param", offload.parameters, offload.parameter_nvme_path),
        )
        if device == "nvme" and path == ""
    ]
    return f"{' and '.join(missing)} to nvme without nvme_path" if missing else None


def _pinned(facts: Facts) -> str | None:
    offload = facts.offload
    loose = [
        name
        for name, device, pinned in (
            ("offload_optimizer", offload.optimizer, offload.optimizer_pin_memory),
            ("offload_param", offload.parameters, offload.parameter_pin_memory),
        )
        if device in ("cpu", "nvme") and pinned is False
    ]
    return f"{' and '.join(loose)} without pinned memory" if loose and facts.zero_stage else None


def _pin(facts: Facts) -> tuple[Change, ...]:
    keys = (f"{OPTIMIZER}/pin_memory", f"{PARAMETERS}/pin_memory")
    found = present(facts, keys)
    return tuple((key, True) for key in found)


def _keys_of_nvme(facts: Facts) -> str | None:
    found = _nvme_keys_without_nvme(facts)
    return f"{are(found)} for nvme only" if found else None


def _nvme_keys_without_nvme(facts: Facts) -> tuple[str, ...]:
    offload = facts.offload
    found: tuple[str, ...] = ()
    if offload.optimizer in ("none", "cpu"):
        found += present(facts, NVME_OPTIMIZER)
    if offload.parameters in ("none", "cpu"):
        found += present(facts, NVME_PARAMETERS)
    return found


def _fast_init_from_host(facts: Facts) -> str | None:
    offload = facts.offload
    if not offload.optimizer_fast_init or offload.optimizer != "nvme" or offload.parameters in (None, "nvme"):
        return None
    return f"offload_optimizer.fast_init is true, and parameters are offloaded to {offload.parameters}"


def _buffers_for_adam(facts: Facts) -> str | None:
    count, offload = facts.offload.optimizer_buffer_count, facts.offload
    if offload.optimizer != "nvme" or facts.zero_stage != 3 or count is None or count >= ADAM_TENSORS:
        return None
    name = (facts.optimizer.type or "").lower()
    if name not in ("adam", "adamw"):
        return None
    return f"offload_optimizer.buffer_count is {count}, and Adam swaps {ADAM_TENSORS} tensors at a time"


def _superchips_below_stage_3(facts: Facts) -> str | None:
    if not facts.offload.super_offload or facts.zero_stage in (None, 3):
        return None
    return f"super_offload is true at ZeRO stage {facts.zero_stage}"


def _superchips_need_cuda(facts: Facts) -> str | None:
    accelerator = facts.machine.accelerator
    if not facts.offload.super_offload or facts.zero_stage != 3 or accelerator in (None, "cuda"):
        return None
    return f"super_offload on a {accelerator} device"


def _superchip_cores(facts: Facts) -> str | None:
    fraction = facts.offload.cpuadam_cores_fraction
    if not facts.offload.super_offload or facts.zero_stage != 3 or fraction is None or 0 < fraction <= 1:
        return None
    return f"cpuadam_cores_perc is {fraction}"


def _cores_without_superchip(facts: Facts) -> str | None:
    if facts.offload.super_offload is not False or not present(facts, (CORES,)):
        return None
    return "cpuadam_cores_perc is there, and super_offload is not true"


RULES = (
    Rule(
        id="offload-optimizer-zero",
        summary=(
            "Optimizer offload is ZeRO's: at stage 0 nothing moves, and the engine takes its CPU Adam all "
            "the same, which stops at the first step on a GPU."
        ),
        check=_optimizer_without_zero,
        remedy="use ZeRO stage 1, 2 or 3, or take offload_optimizer out",
        source="runtime/engine.py:1562-1565",
        severity="ignored",
        keys=(OPTIMIZER, "/zero_optimization/stage"),
        fix=removal(OPTIMIZER),
        needs=("offload",),
    ),
    Rule(
        id="offload-parameters-stage-3",
        summary="Parameter offload is stage 3's: below it parameters stay where they are.",
        check=_parameters_below_stage_3,
        remedy="use ZeRO stage 3, or take offload_param out",
        source="runtime/engine.py:2773",
        severity="ignored",
        keys=(PARAMETERS, "/zero_optimization/stage"),
        fix=removal(PARAMETERS),
        needs=("offload",),
    ),
    Rule(
        id="offload-ratio-stage-3",
        summary="Offloading a part of the optimizer needs stage 3.",
        check=_ratio_below_stage_3,
        remedy="use ZeRO stage 3, or take the ratio out",
        source="runtime/zero/config.py:399",
        engine_message="Partial offloading only supported for ZeRO Stage 3.",
        keys=(f"{OPTIMIZER}/ratio",),
        fix=removal(f"{OPTIMIZER}/ratio"),
        needs=("offload",),
    ),
    Rule(
        id="offload-ratio-range",
        summary="The offloaded part of the optimizer is between 0 and 1.",
        check=_ratio_in_range,
        remedy="use a number from 0 to 1",
        source="runtime/zero/offload_config.py:99",
        engine_message="Input should be",
        keys=(f"{OPTIMIZER}/ratio",),
        fix=removal(f"{OPTIMIZER}/ratio"),
        needs=("offload",),
    ),
    Rule(
        id="offload-ratio-cpu-adam",
        summary="Offloading a part of the optimizer needs DeepSpeed's CPU Adam.",
        check=_ratio_needs_cpu_adam,
        remedy="use the optimizer AdamW without torch_adam, or ratio 1",
        source="runtime/zero/stage3.py:316",
        engine_message="Hybrid Optimizer Only Supports DeepSpeedCPUAdam",
        keys=(f"{OPTIMIZER}/ratio", "/optimizer"),
        fix=removal(f"{OPTIMIZER}/ratio"),
        needs=("offload", "optimizer"),
    ),
    Rule(
        id="offload-client-optimizer",
        summary="The training code's optimizer is offloaded only where zero_force_ds_cpu_optimizer is false.",
        check=_client_optimizer,
        remedy=(
            "describe the optimizer in the file, use DeepSpeedCPUAdam, or set zero_force_ds_cpu_optimizer "
            "to false"
        ),
        source="runtime/engine.py:2346",
        engine_message="You are using ZeRO-Offload with a client provided optimizer",
        keys=("/zero_force_ds_cpu_optimizer", OPTIMIZER),
        needs=("offload", "optimizer"),
    ),
    Rule(
        id="offload-nvme-stage-3",
        summary="NVMe is stage 3's: stages 1 and 2 offload to host memory instead.",
        check=_nvme_below_stage_3,
        remedy="use ZeRO stage 3, or offload to cpu",
        source="runtime/zero/stage_1_and_2.py:220",
        severity="overridden",
        keys=(f"{OPTIMIZER}/device",),
        fix=setting(f"{OPTIMIZER}/device", "cpu"),
        needs=("offload",),
    ),
    Rule(
        id="offload-nvme-bf16-optimizer",
        summary=(
            "bf16 with fp32 accumulation at stage 1 offloads to cpu only: with nvme the engine takes "
            "BF16_Optimizer, which offloads nothing."
        ),
        check=_nvme_with_bf16_optimizer,
        remedy="offload to cpu",
        source="runtime/engine.py:2305",
        severity="ignored",
        keys=(f"{OPTIMIZER}/device",),
        fix=setting(f"{OPTIMIZER}/device", "cpu"),
        needs=("offload",),
    ),
    Rule(
        id="offload-nvme-path",
        summary="Offloading to NVMe needs a folder.",
        check=_nvme_has_a_path,
        remedy="give nvme_path, a folder on the drive",
        source="runtime/zero/stage3.py:840",
        engine_message="expected str, bytes or os.PathLike object, not NoneType",
        keys=(f"{OPTIMIZER}/device", f"{PARAMETERS}/device"),
        needs=("offload",),
    ),
    Rule(
        id="offload-pinned",
        summary="Offload copies through pinned host memory, or its copies wait for computation.",
        check=_pinned,
        remedy="set pin_memory to true where the host has the memory to lock",
        source="runtime/zero/offload_config.py:75",
        severity="hurts",
        keys=(f"{OPTIMIZER}/pin_memory", f"{PARAMETERS}/pin_memory"),
        fix=_pin,
        needs=("offload",),
    ),
    Rule(
        id="offload-nvme-keys",
        summary="Paths and buffers of NVMe do nothing for other devices.",
        check=_keys_of_nvme,
        remedy="take them out",
        source="runtime/zero/stage3.py:839-854",
        severity="ignored",
        keys=(*NVME_OPTIMIZER, *NVME_PARAMETERS),
        fix=lambda facts: tuple((key, REMOVE) for key in _nvme_keys_without_nvme(facts)),
        needs=("offload", "given"),
    ),
    Rule(
        id="offload-fast-init",
        summary="fast_init reads parameters from NVMe: it needs them there.",
        check=_fast_init_from_host,
        remedy="offload parameters to nvme too, or take fast_init out",
        source="runtime/zero/stage3.py:1129",
        severity="ignored",
        keys=(f"{OPTIMIZER}/fast_init",),
        fix=removal(f"{OPTIMIZER}/fast_init"),
        needs=("offload",),
    ),
    Rule(
        id="offload-nvme-buffers",
        summary="Swapping Adam from NVMe needs a buffer for each of its tensors.",
        check=_buffers_for_adam,
        remedy="use a buffer_count of 4 or more",
        source="runtime/swap_tensor/pipelined_optimizer_swapper.py:253",
        engine_message="ran out of swap buffers, try increasing 'buffer_count'",
        keys=(f"{OPTIMIZER}/buffer_count",),
        fix=setting(f"{OPTIMIZER}/buffer_count", ADAM_TENSORS),
        needs=("offload", "optimizer"),
    ),
    Rule(
        id="super-offload-stage-3",
        summary="SuperOffload is stage 3's: below it nothing changes.",
        check=_superchips_below_stage_3,
        remedy="use ZeRO stage 3, or take super_offload out",
        source="runtime/engine.py:2749",
        severity="ignored",
        keys=(SUPER,),
        fix=removal(*OF_SUPERCHIPS),
        needs=("offload",),
    ),
    Rule(
        id="super-offload-cuda",
        summary="SuperOffload runs on NVIDIA GPUs only.",
        check=_superchips_need_cuda,
        remedy="take super_offload out",
        source="runtime/superoffload/superoffload_stage3.py:23",
        engine_message="SuperOffload only supports NVIDIA CUDA GPUs",
        keys=(SUPER,),
        fix=removal(*OF_SUPERCHIPS),
        needs=("offload", "machine"),
    ),
    Rule(
        id="super-offload-cores",
        summary="SuperOffload's optimizer needs some cores: cpuadam_cores_perc is above 0.",
        check=_superchip_cores,
        remedy="use a number above 0 and at most 1",
        source="runtime/superoffload/superoffload_utils.py:189",
        engine_message="cpuadam_cores_perc must be between 0 and 1",
        keys=(CORES,),
        fix=removal(CORES),
        needs=("offload",),
    ),
    Rule(
        id="super-offload-cores-unused",
        summary="cpuadam_cores_perc is SuperOffload's.",
        check=_cores_without_superchip,
        remedy="take it out, or set super_offload to true",
        source="runtime/superoffload/superoffload_stage3.py:57",
        severity="ignored",
        keys=(CORES,),
        fix=removal(CORES),
        needs=("offload", "given"),
    ),
)
