#!/usr/bin/env bash
# Tries raylr on a GPU, the most telling things first. Run it where the GPU is, in the repository's root, with what pack.sh
# has put into .gpu taken along:
#
#     LIMIT=300 ONLY='.*' bash benchmarks/gpu/check.sh
#
# It ends within LIMIT seconds (300 by default), and does the steps whose names the pattern ONLY matches, by default all. Each
# step has its own time limit, and none stops the next. $OUT gets summary.md (what to read), gpu.log (all output) and
# profile.txt. Without a GPU it does everything tiny, on the CPU. Where .gpu has no packed site, raylr and Ray must be
# installed.
set -u
packed=$PWD/.gpu
export OUT=${OUT:-$packed/out} work=${WORK:-$(mktemp -d)} packed
export CHECK_CACHE=$work/cache PYTHONPATH=$work/site:$PWD PYTHONUNBUFFERED=1 RAY_DEDUP_LOGS=0
log=$OUT/gpu.log summary=$OUT/summary.md
end=$((SECONDS + ${LIMIT:-300}))
mkdir -p "$OUT" "$work/site" && : >"$log"

step() { # NAME LIMIT COMMAND...: runs it for at most so many seconds, and no longer than all may take
  local name=$1 limit=$2 left=$((end - SECONDS)) begun=$SECONDS seen code told
  shift 2
  [[ $name =~ ${ONLY:-.*} || $name =~ ^(unpack|environment) ]] || return
  if ((left < 10)); then echo "- **$name**: no time left" >>"$summary" && return; fi
  seen=$(wc -l 2>/dev/null <"$work/memory" || echo 0)
  printf '\n===== %s\n' "$name" >>"$log"
  timeout $((limit < left ? limit : left)) bash -c '"$@"' _ "$@" >"$work/said" 2>&1 </dev/null &
  wait $!
  code=$?
  for _ in {1..16}; do kill -0 -- -$! 2>/dev/null && sleep 0.5; done # what was told to stop, timeout's process group, may end
  kill -KILL -- -$! 2>/dev/null
  cat "$work/said" >>"$log"
  case $code in 0) told=done ;; 124 | 137) told="OUT OF TIME" ;; *) told="FAILED ($code)" ;; esac
  {
    echo "- **$name**: $told, $((SECONDS - begun)) s$(peak "$seen")"
    sed -n 's/^=> /  - /p' "$work/said"
    grep -a 'CUDA graph, slower' "$work/said" | sort -u | head -n 4 | cut -c1-300 | sed 's/^/  - /'
    if ((code)); then grep -av '^=> ' "$work/said" | tail -n 6 | cut -c1-300 | sed 's/^/      /'; fi
  } >>"$summary"
}

peak() { # LINES: the most memory of the GPU in use since so many samples were taken
  [ -s "$work/memory" ] || return
  tail -n "+$(($1 + 1))" "$work/memory" | sort -n | tail -n 1 | sed 's/^/, peak /; s/$/ MiB on the card/'
}

unpacked() {
  [ -f "$packed/site.tar.xz" ] || { echo "=> nothing is packed: raylr and Ray are those of this machine" && return; }
  tar -xJf "$packed/site.tar.xz" -C "$work/site" && python3 -m compileall -q -j 0 "$work/site" raylr
  return 0 # some files in Ray are for other versions of Python
}

machine() {
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader 2>&1 | sed 's/^/=> /'
  ls /dev/nvidia* 2>/dev/null
  probe env
}

probe() {
  python3 -m benchmarks.gpu.probe "$@"
}

run() { # NAME FLAGS...
  python3 -m raylr train --name "$1" --storage "$work/runs" --data.cache-dir "$CHECK_CACHE" --workers 1 --gpu "$gpu" \
    --fresh "${@:2}"
}

killed() { # a run, and the same one with its worker killed in the middle
  run whole $small || return
  run killed $small &
  local driver=$! ledger=$work/runs/killed/ledger.jsonl
  until [ "$(wc -l 2>/dev/null <"$ledger" || echo 0)" -gt "$middle" ]; do kill -0 $driver && sleep 0.02 || return 1; done
  kill -9 "$(grep -o '"pid": [0-9]*' "$work/runs/killed/events.jsonl" | tail -n 1 | cut -d' ' -f2)"
  wait $driver && probe results "$work"/runs/{whole,killed}
}

twice() { # needs the run of `killed`
  run again $small && probe results "$work"/runs/{whole,again}
}

pictures() { # two CPU workers reach 88.4, 88.8 and 88.0 % on all of these images
  [ -f "$packed/images.tar.xz" ] || { echo "=> no images were packed" && return; }
  run pictures jobs/accuracy88.yaml --data.source "$packed/images.tar.xz" $short && probe results "$work/runs/pictures"
}

trials() { # four on one GPU
  python3 -m raylr explore --name trials --storage "$work/runs" --data.cache-dir "$CHECK_CACHE" --trials 4 --workers 1 \
    --gpu "$gpu" --gpus-per-worker 0.25 --fresh $small $rounds && probe population "$work/runs/trials"
}

marked() {
  python3 -c 'import pytest, pytest_timeout' 2>/dev/null || { echo "=> pytest and pytest-timeout are not here" && return; }
  python3 -m pytest -q -p no:cacheprovider -m gpu tests/gpu 2>&1 | tee "$work/marked"
  tail -n 1 "$work/marked" | sed 's/^/=> /'
}
export -f unpacked machine probe run killed twice pictures trials marked

if nvidia-smi >/dev/null 2>&1; then
  export gpu=yes middle=150 short="" small="--data.source synthetic --epochs 24 --precision bf16"
  export rounds="--epochs 12 --interval 3ep"
  nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -l 1 >"$work/memory" &
  sampler=$!
else
  tiny="--data.train-examples 100 --data.test-examples 20 --batch.global-size 20 --batch.micro-size 10 --precision fp32"
  export gpu=no middle=20 rounds="--epochs 2" short="$tiny --epochs 3" small="--data.source synthetic $tiny --epochs 12"
fi
echo "# raylr on $(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null || echo 'no GPU'), $(date -u +%FT%TZ)" >"$summary"
step "unpack Ray" 45 unpacked
step "environment" 30 machine
step "bits: 1, 2 and 4 ranks on one GPU (gloo), and without CUDA graphs" 60 probe bits
step "speed in turns with a plain loop" 60 probe speed
step "waits, launches and copies of an update" 40 probe counts
step "several trials: processes, streams, MPS" 75 probe several
step "a killed worker" 80 killed
step "the same run twice" 35 twice
step "NCCL, a group of one" 25 probe nccl
step "CIFAR-10 as JPEG, jobs/accuracy88.yaml" 100 pictures
step "tests marked gpu" 40 marked
step "the CPU's gradients" 30 probe cpu
step "four trials on one GPU" 60 trials
[ -z "${sampler-}" ] || kill "$sampler"
cat "$summary"
