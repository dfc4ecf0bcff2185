"""Rows made up for tests."""

from __future__ import annotations

import csv
from pathlib import Path

from vdsgen.published.row import COLUMNS, Row, read_rows

GPT = {
    "source_repo_or_paper": "test (real Megatron-LM runs)",
    "model": "Llama3 slice",
    "arch": "gpt",
    "layers": "4",
    "hidden": "1024",
    "heads": "8",
    "seq_len": "2048",
    "precision": "bf16 (fp32 main grads)",
    "optimizer": "Adam (Megatron distributed optimizer)",
    "trainable": "full",
    "grad_ckpt": "none",
    "offload": "none",
    "zero_stage": "1",
    "tp": "2",
    "pp": "1",
    "dp": "4",
    "gpus": "8",
    "gpu_type": "H100 80GB",
    "micro_batch": "1",
    "global_batch": "16",
    "peak_mem_gb": "2.5",
    "mem_kind": "allocated",
    "sec_per_step": "0.05",
    "notes": "GiB; CP=1; sequence parallel on, ffn=3584, kv groups=4, vocab 32000 untied, fused CE",
}

DIT = {
    **dict.fromkeys(GPT, ""),
    "source_repo_or_paper": "test",
    "model": "CogVideoX-5b",
    "arch": "dit",
    "frames": "49",
    "height": "480",
    "width": "720",
    "precision": "bf16 mixed",
    "optimizer": "AdamW",
    "trainable": "lora r64",
    "grad_ckpt": "full",
    "offload": "none",
    "dp": "1",
    "gpus": "1",
    "gpu_type": "H100 80GB",
    "micro_batch": "1",
    "peak_mem_gb": "20",
    "mem_kind": "reserved",
    "sec_per_step": "5",
}


def written(path: Path, *rows: dict[str, str]) -> Path:
    """A file of these rows; cells that they leave out are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return path


def row(folder: Path, **changes: str) -> Row:
    """GPT with some cells changed."""
    (only,) = read_rows(written(folder / "rows.csv", {**GPT, **changes}))
    return only
