"""What Megatron-LM's own parser takes: recorded flags, and the parser itself where its source is."""

from __future__ import annotations

import argparse
import ast
import os
from enum import Enum
from pathlib import Path
from typing import Any

# megatron/training/arguments.py, NVIDIA/Megatron-LM 000c4ac24f61159c138b0975def722c65245983c: the flags that
# plans are said with, as `add_argument` has them there.
RECORDED: dict[str, dict[str, Any]] = {
    "--num-layers": {"type": int},
    "--hidden-size": {"type": int},
    "--ffn-hidden-size": {"type": int},
    "--num-attention-heads": {"type": int},
    "--max-position-embeddings": {"type": int},
    "--seq-length": {"type": int},
    "--attention-dropout": {"type": float},
    "--hidden-dropout": {"type": float},
    "--weight-decay": {"type": float},
    "--clip-grad": {"type": float},
    "--adam-beta1": {"type": float},
    "--adam-beta2": {"type": float},
    "--adam-eps": {"type": float},
    "--micro-batch-size": {"type": int},
    "--global-batch-size": {"type": int},
    "--recompute-granularity": {"type": str, "choices": ["full", "selective"]},
    "--recompute-method": {"type": str, "choices": ["uniform", "block"]},
    "--recompute-num-layers": {"type": int},
    "--train-iters": {"type": int},
    "--optimizer": {"type": str, "choices": ["adam", "sgd", "muon", "dist_muon"]},
    "--seed": {"type": int},
    "--lr": {"type": float},
    "--min-lr": {"type": float},
    "--lr-decay-style": {"choices": ["constant", "linear", "cosine", "inverse-square-root", "WSD"]},
    "--lr-decay-iters": {"type": int},
    "--lr-warmup-iters": {"type": int},
    "--fp16": {"action": "store_true"},
    "--bf16": {"action": "store_true"},
    "--grad-reduce-in-bf16": {"action": "store_true"},
    "--accumulate-allreduce-grads-in-fp32": {"action": "store_true"},
    "--initial-loss-scale": {"type": float},
    "--min-loss-scale": {"type": float},
    "--loss-scale-window": {"type": float},
    "--hysteresis": {"type": int},
    "--tensor-model-parallel-size": {"type": int},
    "--pipeline-model-parallel-size": {"type": int},
    "--decoder-first-pipeline-num-layers": {"type": int},
    "--decoder-last-pipeline-num-layers": {"type": int},
    "--use-distributed-optimizer": {"action": "store_true"},
}

SOURCE = "VDSGEN_TEST_MEGATRON"
"""Names a checkout of Megatron-LM (or its megatron/training/arguments.py) to hold files against."""


def recorded_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    for flag, options in RECORDED.items():
        parser.add_argument(flag, **options)
    return parser


def real_parser() -> argparse.ArgumentParser | None:
    """Megatron's: its `_add_*_args` functions, executed without importing the rest of it; None: no source."""
    named = os.environ.get(SOURCE)
    if not named:
        return None
    path = Path(named)
    path = path / "megatron" / "training" / "arguments.py" if path.is_dir() else path
    tree = ast.parse(path.read_text())
    functions = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("_add_")
    ]
    module = ast.Module(body=list(functions), type_ignores=[])
    AttnBackend = Enum("AttnBackend", "flash fused unfused local auto")  # noqa: N806
    names: dict[str, Any] = {
        "argparse": argparse, "os": os, "AttnBackend": AttnBackend,
        "tuple_type": str, "moe_freq_type": str, "no_rope_freq_type": str,
    }  # fmt: skip
    exec(compile(module, str(path), "exec"), names)  # a checkout that the person who runs the tests names
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    for function in functions:
        if len(function.args.args) == 1:
            try:
                names[function.name](parser)
            except NameError:
                continue  # a group that wants more of Megatron than its parser
    return parser
