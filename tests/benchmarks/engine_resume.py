"""Whether DeepSpeed really resumes one config's checkpoint under another, beside what `vdsgen diff` says.

    python -m tests.benchmarks.engine_resume [--json]

Two ranks train a small model for two steps under each config, save with `engine.save_checkpoint`, and load
under each other one. `as_is`: `engine.load_checkpoint` returns, and after one more step weights and moments
are those of a run that went on. `conversion`: they are not, and with the folder of `ds_to_universal` they
are; its file of model states is there under the name that stage 3 looks for, too. `impossible`: neither. It
takes some minutes.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RANKS = 2
BASE: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 1,
    "train_batch_size": 2,
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": 1},
    "optimizer": {"type": "AdamW", "params": {"lr": 0.01, "torch_adam": True}},
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}
ADAMW = {"lr": 0.01, "torch_adam": True}
WARM = {"type": "WarmupLR", "params": {"warmup_num_steps": 10}}
CONFIGS: dict[str, dict[str, Any]] = {
    "ZeRO-0 in fp32": {"zero_optimization": {"stage": 0}, "bf16": {"enabled": False}},
    "ZeRO-0": {"zero_optimization": {"stage": 0}},
    "ZeRO-1": {},
    "ZeRO-1 in fp32": {"bf16": {"enabled": False}},
    "ZeRO-1, sums in fp32": {"data_types": {"grad_accum_dtype": "fp32"}},
    "ZeRO-2": {"zero_optimization": {"stage": 2}},
    "ZeRO-2, round robin": {"zero_optimization": {"stage": 2, "round_robin_gradients": True}},
    "ZeRO-2, offloaded": {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}},
    "ZeRO-3": {"zero_optimization": {"stage": 3}},
    "ZeRO-3, small groups": {"zero_optimization": {"stage": 3, "sub_group_size": 100}},
    "ZeRO-1, aligned": {"zero_optimization": {"stage": 1, "parameter_alignment": True}},
    "ZeRO-1, elastic": {"zero_optimization": {"stage": 1, "elastic_checkpoint": True}},
    "ZeRO-1, another rate": {"optimizer": {"type": "AdamW", "params": {**ADAMW, "lr": 0.05}}},
    "ZeRO-1, a schedule": {"scheduler": WARM},
    "ZeRO-1, SGD": {"optimizer": {"type": "SGD", "params": {"lr": 0.01, "momentum": 0.9}}},
}
PAIRS = [
    *[(one, other) for one in list(CONFIGS)[:10] for other in list(CONFIGS)[:10] if one != other],
    *[("ZeRO-1", other) for other in list(CONFIGS)[10:]],
    ("ZeRO-1, a schedule", "ZeRO-1"),
]


def config_of(name: str) -> dict[str, Any]:
    return {**copy.deepcopy(BASE), **copy.deepcopy(CONFIGS[name])}


def said(old: str, new: str) -> str:
    """What `vdsgen diff` says."""
    from vdsgen.review.diff import diff_sides
    from vdsgen.review.side import plain_config

    sides = [plain_config(name, json.dumps(config_of(name)).encode()) for name in (old, new)]
    return diff_sides(*sides).verdicts.resume.verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        run_rank(arguments.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = run_ranks(Path(folder))
    rows = [(old, new, said(old, new), found[f"{old} -> {new}"]) for old, new in PAIRS]
    agree = sum(verdict == really["verdict"] for _, _, verdict, really in rows)
    if arguments.json:
        print(json.dumps({f"{old} -> {new}": really for old, new, _, really in rows}, indent=2))
    else:
        for old, new, verdict, really in rows:
            mark = "" if verdict == really["verdict"] else f"   DIFFERS: {str(really['why'])[:120]}"
            print(f"{old:22} -> {new:22} said {verdict:10} is {really['verdict']:10}{mark}")
    print(f"{agree} of {len(rows)} as said", file=sys.stderr)


def run_ranks(folder: Path) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.engine_resume", "--rank", str(rank), "--folder", folder],
            env={
                **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu",
                "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if rank else None,
        )
        for rank in range(RANKS)
    ]  # fmt: skip
    for rank in ranks:
        if rank.wait() != 0:
            raise SystemExit(f"a rank ended with {rank.returncode}")
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def run_rank(folder: Path) -> None:
    import logging
    from datetime import timedelta

    import deepspeed
    import torch

    deepspeed.utils.logger.setLevel(logging.CRITICAL)
    deepspeed.init_distributed("gloo", verbose=False, timeout=timedelta(seconds=90))
    saved = {}
    for number, name in enumerate(CONFIGS):
        engine = _engine(config_of(name))
        _train(engine)
        engine.save_checkpoint(str(folder / str(number)), tag="plain")
        _train(engine, [2])
        saved[name] = _states(engine)
        torch.distributed.barrier()
        if torch.distributed.get_rank() == 0:
            _convert(folder / str(number))
        torch.distributed.barrier()
    found = {}
    for old, new in PAIRS:
        place = folder / str(list(CONFIGS).index(old))
        verdict, why = "as_is", _load(config_of(new), place, "plain", saved[old])
        if why is not None:
            universal = {**config_of(new), "checkpoint": {"load_universal": True}}
            there = (place / "universal").is_dir()
            again = _load(universal, place, "universal", saved[old]) if there else "no universal checkpoint"
            verdict, why = ("conversion", why) if again is None else ("impossible", f"{why}; then {again}")
        found[f"{old} -> {new}"] = {"verdict": verdict, "why": why}
    if torch.distributed.get_rank() == 0:
        (folder / "found.json").write_text(json.dumps(found))


def _convert(place: Path) -> None:
    """As deepspeed's command does; leaves nothing where it cannot."""
    done = subprocess.run(
        [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder", place / "plain",
         "--output_folder", place / "universal", "--inject_missing_state", "--num_extract_workers", "1",
         "--num_merge_workers", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        shutil.rmtree(place / "universal", ignore_errors=True)
        return
    names = [place / "universal" / name for name in ("mp_rank_00_model_states.pt",
             "zero_pp_rank_0_mp_rank_00_model_states.pt")]  # fmt: skip
    for one, other in (names, names[::-1]):
        if one.exists() and not other.exists():
            shutil.copy(one, other)


def _engine(config: dict[str, Any]) -> Any:
    import deepspeed
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 6))
    return deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config=config, dist_init_required=False
    )[0]


def _train(engine: Any, steps: Sequence[int] = (0, 1)) -> None:
    import torch

    for step in steps:
        clips = torch.randn(1, 8, generator=torch.Generator().manual_seed(step)).to(
            next(engine.module.parameters()).dtype
        )
        engine.backward((engine(clips).float() ** 2).mean())
        engine.step()


def _states(engine: Any) -> dict[str, Any]:
    """Name -> fp32 weight, and its moments where they can be asked for."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    found = {}
    for name, parameter in engine.module.named_parameters():
        if engine.zero_optimization():
            found[name] = safe_get_full_fp32_param(parameter).flatten().clone()
            has_moments = engine.optimizer_name() == "adamw"
            for moment in ("exp_avg", "exp_avg_sq") if has_moments else ():
                state = safe_get_full_optimizer_state(parameter, moment)
                if state is not None:
                    found[f"{name}.{moment}"] = state.float().flatten().clone()
        else:
            found[name] = parameter.detach().float().flatten().clone()
    return found


def _is_near(found: Any, wanted: Any) -> bool:
    """To the rounding of bf16: a step without its moments differs by much more."""
    import torch

    if found is None:
        return False
    scale = float(wanted.abs().max())
    return bool(torch.allclose(found, wanted, rtol=0.05, atol=0.02 * scale))


def _load(config: dict[str, Any], place: Path, tag: str, saved: dict[str, Any]) -> str | None:
    """None where the states of `saved` are there afterwards, and a step can be taken; else what was wrong.
    All ranks agree."""
    import torch

    why: str | None = None
    try:
        engine = _engine(config)
        path, _ = engine.load_checkpoint(str(place), tag=tag)
        if path is None:
            why = "nothing was loaded"
        else:
            _train(engine, [2])
            now = _states(engine)
            wrong = [
                name for name, value in saved.items()
                if (name in now or engine.zero_optimization()) and not _is_near(now.get(name), value)
            ]  # fmt: skip
            why = f"other values of {wrong[0]}" if wrong else None
    except Exception as error:  # whatever DeepSpeed raises is what is asked about
        why = f"{type(error).__name__}: {error}"
    answers: list[str | None] = [None] * RANKS
    torch.distributed.all_gather_object(answers, why)
    return next((answer for answer in answers if answer is not None), None)


if __name__ == "__main__":
    main()
