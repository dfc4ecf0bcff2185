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

# Given a number of GPUs, the runner drops CUDA_VISIBLE_DEVICES: pass on the GPUs that it names instead.
devices=(--hostfile '' --num_gpus 4)
if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
    IFS=, read -r -a visible <<<"$CUDA_VISIBLE_DEVICES"
    if [[ ${#visible[@]} -lt 4 ]]; then
        printf '%s: the plan is for %s GPUs, CUDA_VISIBLE_DEVICES names %s\n' \
            "$0" 4 "$CUDA_VISIBLE_DEVICES" >&2
        exit 2
    fi
    chosen=$(IFS=,; printf '%s' "${visible[*]:0:4}")
    devices=(--hostfile '' --include "localhost:$chosen")
fi

exec deepspeed "${devices[@]}" --module vdsgen.model.train --plan-dir "$here" --output "$output" "$@"
