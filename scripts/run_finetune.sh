#!/usr/bin/env bash
# Fine-tune a model by the recipe configs/<paper>/<task>.yaml:
#
#   bash scripts/run_finetune.sh --task vqa --model unimo3_base --init DIR
#
# Ranks: every GPU, or NPROC_PER_NODE=2; on several machines NNODES=2 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 too.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
unimo_launch tools/finetune.py "$@"
