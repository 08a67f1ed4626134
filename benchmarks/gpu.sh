#!/usr/bin/env bash
# What can be measured on a GPU only, in one go of some minutes: a training step beside the official code, plain, with
# bf16, and compiled; where its time goes; how fast translating is beside decoding.
#
#     benchmarks/gpu.sh OFFICIAL [PYTHON]
#
# OFFICIAL holds the unpacked repositories ugatit/ cyclegan/ stargan/ cartoongan/ (see official.py).
set -uo pipefail
official=$1 python=${2:-.venv/bin/python}
row() { # METHOD FOLDER OPTIONS...
    echo "== $*"
    timeout 150 "$python" benchmarks/official.py "$1" "$official/$2" --steps 20 --warm 8 --apart "${@:3}" ||
        echo "ended with status $?"
}
for options in "--precision fp32" "--precision bf16" "--precision bf16 --set run.compile=true"; do
    # shellcheck disable=SC2086
    row ugatit-light ugatit --size 112 --batch 8 $options
done
best="--precision bf16"
# shellcheck disable=SC2086
{
    row ugatit ugatit --size 256 --batch 1 $best
    row cyclegan cyclegan --size 256 --batch 1 $best
    row cyclegan cyclegan --size 256 --batch 8 $best
    row stargan stargan --size 128 --batch 16 $best
    row cartoongan cartoongan --size 256 --batch 8 $best
}
timeout 120 "$python" benchmarks/profile_step.py ugatit-light --size 112 --batch 8 --precision bf16
timeout 120 "$python" benchmarks/translate.py --count 2000
