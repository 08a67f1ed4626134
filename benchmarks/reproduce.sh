#!/usr/bin/env bash
# Make the numbers of a claim in docs/claims.md again: benchmarks/reproduce.sh CLAIM [DATA]
#
# DATA holds selfie2anime-128, expressions-128, utkface-128 and inception-2015-12-05-768.onnx, for bismi also what
# benchmarks/stylegan2_data.py reads and vgg-to-relu3_1.safetensors; the default is the current folder. Runs go to runs/
# and are resumed when the command is repeated. Environment: SEEDS (1), BASE (6700 steps of the base of bismi).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cards=$here/cards
seeds=${SEEDS:-1}
data=${2:-.}
features=$data/inception-2015-12-05-768.onnx

against() { # --against for each card but the first
    local first=$1 card
    shift
    for card in "$@"; do
        [ "$card" = "$first" ] || printf -- '--against\n%s\n' "$card"
    done
}

case ${1:-} in
kang)
    facekit ablate "$cards/ugatit-face.yaml" --data "$data/selfie2anime-128" --drop segmentation+feature --drop segmentation \
        --drop feature --seeds "${SEEDS:-3}" --features "$features" --out runs/ugatit-face
    ;;
rao)
    mapfile -t others < <(against "$cards/labels/expression.yaml" "$cards"/labels/{stargan,stargan-control,stargan-mask,combogan}.yaml)
    facekit ablate "$cards/labels/expression.yaml" --data "$data/expressions-128" --drop contextual "${others[@]}" \
        --seeds "$seeds" --features "$features" --classifier expressions --out runs/expressions
    python "$here/pairs.py" runs/expressions --data "$data/expressions-128"
    ;;
gallery | eki)
    first=$cards/gallery/cyclegan.yaml
    mapfile -t others < <(against "$first" "$cards"/gallery/*.yaml)
    facekit ablate "$first" --data "$data/selfie2anime-128" "${others[@]}" --seeds "$seeds" --features "$features" --out runs/gallery
    python "$here/gallery.py" runs/gallery --picture runs/gallery.jpg
    ;;
two-way)
    first=$cards/two-way/cyclegan.yaml
    read -ra methods <<<"${METHODS:-cyclegan-angle face2anime face2anime-critic unit xgan}"
    methods=("${methods[@]/%/.yaml}")
    mapfile -t others < <(against "$first" "${methods[@]/#/$cards/two-way/}")
    facekit ablate "$first" --data "$data/selfie2anime-128" "${others[@]}" --set run.validate_features="$features" \
        --seeds "${SEEDS:-3}" --features "$features" --out runs/two-way
    python "$here/angle.py" runs/two-way/runs/cyclegan-s? --photos "$data/selfie2anime-128/valA" \
        --drawings "$data/selfie2anime-128/valB" --angles 0 30 45 --limit 150 --features "$features"
    ;;
eki-angle)
    "$0" gallery "$data"
    facekit train --card runs/gallery/cards/cyclegan-angle-s0.yaml --set params.mode=none --out runs/angle-none
    python "$here/angle.py" runs/gallery/runs/cyclegan-angle-s0 runs/angle-none --photos "$data/selfie2anime-128/valA" \
        --drawings "$data/selfie2anime-128/valB" --angles 0 15 30 45 --limit 150 --features "$features"
    ;;
bismi)
    first=$cards/artify/artifygan-r3.yaml
    mapfile -t others < <(against "$first" "$cards"/artify/*.yaml)
    facekit ablate "$first" --data "$data/selfie2anime-128" "${others[@]}" --features "$features" --out runs/bismi
    python "$here/stylegan2_data.py" "$data" runs/photos
    vgg=(--set params.vgg="$data/vgg-to-relu3_1.safetensors" --set params.preprocessing=caffe)
    facekit train stylegan2-projected --a runs/photos/faces --out runs/faces --precision bf16 --batch 8 --steps "${BASE:-6700}" \
        --set losses.adversarial_parts=0 --set losses.judge_parts=0 "${vgg[@]}"
    mkdir -p runs/thousand
    (cd runs/photos/faces && ls | LC_ALL=C sort | shuf --random-source=<(yes) -n 1000 | xargs cp -t ../../thousand)
    facekit sample runs/faces runs/sampled --n 1000 --truncation 1
    facekit score-fid runs/sampled runs/thousand --features "$features" --resize 64
    tune() { # RUN SEED STEPS
        facekit train stylegan2-projected-structure --a "$data/selfie2anime-128/trainB" --init runs/faces --out "runs/$1" --seed "$2" \
            --steps "$3" --precision bf16 --batch 8 --set losses.adversarial_parts=0 --set losses.judge_parts=0 "${vgg[@]}"
    }
    for ((seed = 0; seed < seeds; seed++)); do
        tune "drawn-$seed" "$seed" 400
    done
    tune drawn-long 0 1200
    mkdir -p runs/one
    facekit align "$data/selfie2anime-128/trainB/01103.jpg" runs/one --size 64 --detector facekit
    facekit train jojogan --a runs/one --init runs/faces --out runs/jojo --precision bf16 --steps 300 "${vgg[@]}"
    for run in runs/drawn-* runs/jojo; do
        facekit translate --no-align --weights "$run" --control inversion_steps=60 --limit 100 runs/bismi/held/photo "runs/bismi/${run#runs/}"
        facekit score-fid "runs/bismi/${run#runs/}" runs/bismi/held/anime --features "$features" --source runs/bismi/held/photo
    done
    ;;
*)
    echo "usage: benchmarks/reproduce.sh kang|rao|eki|eki-angle|gallery|two-way|bismi [DATA]" >&2
    exit 2
    ;;
esac
