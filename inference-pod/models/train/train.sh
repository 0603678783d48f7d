#!/usr/bin/env bash
# Trains the default model and exports its three epochs: ./train.sh WORK_DIR OUT_DIR
# Run it again after a stop: finished stages are skipped, the others go on from their last checkpoint.
# Deterministic: the same processor type and library versions give the same bits, those of ../epochs.json.
set -euo pipefail
mkdir -p "$1" "$2"
work=$(realpath "$1") out=$(realpath "$2")
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1 # one thread in each of two processes; see training.py
both="torchrun --standalone --nproc-per-node 2"

[[ -e $work/meta.json ]] || python data.py --work "$work"
# The autoencoder of the repository. To train another: $both vae.py --work WORK_DIR --minutes 20, before this script.
[[ -e $work/latents.pt ]] || python vae.py --work "$work" --trained ../emoji/vae
[[ -e $work/text_encoder/config.json ]] || python text.py --work "$work"
$both diffusion.py --work "$work"
for epoch in early middle last; do
    python export.py --work "$work" --epoch $epoch --out "$out/$epoch"
    python grid.py --model "$out/$epoch" --out "$out/$epoch.png"
done
python measure.py --work "$work" --model "$out/last"
python loss_curve.py --log "$work/diffusion.log" --out "$out/loss.png"
