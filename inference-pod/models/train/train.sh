#!/usr/bin/env bash
# Makes ../emoji from nothing: ./train.sh WORK_DIR [MINUTES_VAE] [MINUTES_DIFFUSION]
# Run it again after a stop: finished stages are skipped, the others go on from their last checkpoint.
set -euo pipefail
work=$1 vae_minutes=${2:-20} diffusion_minutes=${3:-62}
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1 # one thread in each of two processes; see training.py
both="torchrun --standalone --nproc-per-node 2"

[[ -e $work/meta.json ]] || python data.py --work "$work"
[[ -e $work/latents.pt ]] || $both vae.py --work "$work" --minutes "$vae_minutes"
[[ -e $work/text_encoder/config.json ]] || python text.py --work "$work"
$both diffusion.py --work "$work" --minutes "$diffusion_minutes"
python export.py --work "$work" --out ../emoji

cards=../cards/emoji
python grid.py --model ../emoji --out $cards/chosen.png
python grid.py --model ../emoji --out $cards/every-nth.png --work "$work" --names 64
python measure.py --work "$work" --model ../emoji
python loss_curve.py --log "$work/diffusion.log" --out $cards/loss.png
