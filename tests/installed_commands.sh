#!/usr/bin/env bash
# Runs the commands of an installed wheel in an empty folder, with few steps: tests/installed_commands.sh PYTHON
set -euo pipefail
python=$(realpath --no-symlinks "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

"$python" -c 'import launch; assert "site-packages" in launch.__file__, launch.__file__'
"$python" -m launch.pretrain --config=digits --workdir=runs/digits --config.pretrain.steps=2 \
    --config.pretrain.warmup_epochs=0 --config.pretrain.probe_every=0
"$python" -m launch.finetune --config=digits --config.pretrained=runs/digits --workdir=runs/digits_finetuned \
    --config.finetune.steps=2 --config.finetune.warmup_epochs=0
"$python" -m launch.evaluate --model=runs/digits_finetuned
"$python" -m launch.report runs/digits runs/digits_finetuned --output=report.html
test -s report.html
