#!/usr/bin/env bash
# Trains by the recipe of airbench94_muon on a GPU, the original beside it where .gpu has its script. Run it where the GPU is,
# in the repository's root, with what pack.sh has put into .gpu taken along:
#
#     bash benchmarks/gpu/pack.sh IMAGES FOLDER      before, in a checkout: FOLDER holds the original's airbench94_muon.py
#     LIMIT=240 bash benchmarks/gpu/speedrun.sh      where the GPU is; more arguments go to benchmarks.gpu.speedrun
#
# It ends within LIMIT seconds (240 by default). $OUT gets speedrun.md (the table), speedrun_profile.txt and speedrun.log (all
# rows as they came). WORK is a folder for what is unpacked and decoded; what check.sh has left there serves too. Without a GPU
# it does everything tiny, on the CPU.
set -u
packed=$PWD/.gpu begun=$SECONDS
OUT=$(realpath -m "${OUT:-$packed/out}") work=$(realpath -m "${WORK:-$(mktemp -d)}")
export OUT work PYTHONUNBUFFERED=1
export PYTHONPATH=$work/site:$PWD
mkdir -p "$OUT" "$work/site"
if [ -f "$packed/site.tar.xz" ] && [ -z "$(ls -A "$work/site")" ]; then
  tar -xJf "$packed/site.tar.xz" -C "$work/site"
fi
arguments=(--work "$work/speedrun" --cache "$work/cache" --out "$OUT/speedrun.md")
[ -f "$packed/images.tar.xz" ] && arguments+=(--images "$packed/images.tar.xz")
[ -f "$packed/airbench94_muon.py" ] && arguments+=(--original "$packed/airbench94_muon.py")
left=$((${LIMIT:-240} - (SECONDS - begun)))
timeout -k 5 "$left" python3 -m benchmarks.gpu.speedrun --limit $((left - 5)) "${arguments[@]}" "$@" 2>&1 |
  tee "$OUT/speedrun.log"
