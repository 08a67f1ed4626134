#!/usr/bin/env bash
# The page of `facekit export --web` in Chromium beside Python: largest and mean difference of 255, seconds a face.
# benchmarks/web.sh ONNXRUNTIME_WEB.tgz, the file that `npm pack onnxruntime-web@1.30.0` writes; needs selenium.
set -euo pipefail
runtime=$(realpath "$1")
cd "$(dirname "$0")/.."
FACEKIT_ONNXRUNTIME_WEB=$runtime ${PYTHON:-.venv/bin/python} -m pytest -s -q tests/inference/test_web_page.py -k draws
