#!/bin/bash
# One run on a TPU VM with nothing but gcloud: make the machine, install, run until it is done, fetch, delete.
#
#     PROJECT=my-project ZONE=us-west4-a experiments/launch/gcloud-tpu.sh up
#     PROJECT=my-project ZONE=us-west4-a experiments/launch/gcloud-tpu.sh run --num_tasks 512
#     PROJECT=my-project ZONE=us-west4-a experiments/launch/gcloud-tpu.sh fetch      # the run folder, into runs/
#     PROJECT=my-project ZONE=us-west4-a experiments/launch/gcloud-tpu.sh down       # it costs money until then
#
# Call it from the top of the checkout. Set PROJECT, ZONE and, if you like, TYPE (v5litepod-8 is one host; v5litepod-16 and
# more are several), VERSION (the machine's software), NAME, PRESET, SEED. What stands behind `run` is given to
# `metadisco discover`.
#
# Several hosts write one checkpoint, so RUNS must then be a folder that all of them see, such as a mounted Filestore
# share. When a spot machine is taken away, its disk goes with it: with RUNS on a share, `up` and `run` again go on.
set -euo pipefail

: "${PROJECT:?name of the project}" "${ZONE:?a zone that has the TPU, such as us-west4-a}"
NAME=${NAME:-metadisco}
TYPE=${TYPE:-v5litepod-8}
VERSION=${VERSION:-v2-alpha-tpuv5-lite}
PRESET=${PRESET:-ta-lpg-grid}
SEED=${SEED:-0}
RUNS=${RUNS:-runs}
PYTHON=${PYTHON:-python3.11} # 3.11 to 3.13, on the machine
OUT="$RUNS/$PRESET-seed$SEED"

tpu() {
  local verb=$1
  shift
  gcloud compute tpus tpu-vm "$verb" "$@" --project="$PROJECT" --zone="$ZONE"
}

everywhere() {
  tpu ssh "$NAME" --worker=all --command="$1"
}

# Words as a shell would have to read them again.
quoted() {
  printf '%q ' "$@"
}

case ${1:-help} in
  up)
    tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" ${SPOT:+--spot}
    archive=$(mktemp --suffix=.tar.gz)
    git archive --format=tar.gz --output="$archive" HEAD
    tpu scp "$archive" "$NAME:metadisco.tar.gz" --worker=all
    rm "$archive"
    everywhere "mkdir -p metadisco && tar -xzf metadisco.tar.gz -C metadisco && cd metadisco &&
      $PYTHON -m venv .venv && .venv/bin/pip install '.[tpu]' \
        --constraint constraints/\$($PYTHON -c 'import sys; print(\"py%d%d\" % sys.version_info[:2])').txt"
    ;;
  run)
    shift
    # On one host --distributed changes nothing; on several the TPU runtime tells jax.distributed who is who.
    everywhere "cd metadisco && exec .venv/bin/metadisco discover $(quoted "$PRESET" --out "$OUT" --seed "$SEED" \
      --resume --distributed "$@")"
    ;;
  fetch)
    mkdir -p runs
    case $RUNS in
      /*) from=$OUT ;;
      *) from=metadisco/$OUT ;;
    esac
    tpu scp "$NAME:$from" runs/ --recurse --worker=0
    ;;
  down)
    tpu delete "$NAME" --quiet
    ;;
  *)
    echo "usage: PROJECT=... ZONE=... $0 up | run [SETTING ...] | fetch | down" >&2
    exit 2
    ;;
esac
