#!/usr/bin/env bash
# Makes ../emoji-edit from nothing but ../emoji: ./edit.sh WORK_DIR
# Run it again after a stop: finished stages are skipped, the others go on from their last checkpoint.
set -euo pipefail
mkdir -p "$1"
work=$(realpath "$1")
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1 # one thread in each of two processes; see training.py
both="torchrun --standalone --nproc-per-node 2"

[[ -e $work/edit_meta.json ]] || python edit_data.py --work "$work"
[[ -e $work/edit_latents.pt ]] || $both edit_vae.py --work "$work"
$both edit.py --work "$work"
python edit_export.py --work "$work" --out ../emoji-edit

cards=../cards/emoji-edit
python edit_grid.py --work "$work" --model ../emoji-edit --out $cards/grid.png
python edit_measure.py --work "$work" --model ../emoji-edit
python loss_curve.py --log "$work/edit.log" --out $cards/loss.png
