#!/usr/bin/env bash
# Trains what this directory says. `vdsgen launch` does the same, with checks before and logs for each rank.
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
    printf 'usage: %s OUTPUT [more arguments for the training entrypoint, such as --resume]\n' "$0" >&2
    exit 2
fi
output=$1
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if ! command -v deepspeed >/dev/null; then
    printf '%s: there is no deepspeed on PATH; activate the environment with vdsgen[train] installed\n' "$0" >&2
    exit 2
fi
export DS_ACCELERATOR=cpu
unset CUDA_VISIBLE_DEVICES
devices=(--hostfile '' --num_gpus 4)

exec deepspeed "${devices[@]}" --module vdsgen.model.train --plan-dir "$here" --output "$output" "$@"
