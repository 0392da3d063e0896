#!/bin/bash
# `raylr train` on the nodes of a SLURM allocation: starts Ray on them, trains, ends Ray. Its arguments are those of the verb;
# with `explore` first, those of `raylr explore`.
#
#     sbatch --nodes=2 --gpus-per-node=4 --time=04:00:00 jobs/slurm.sh --workers 8 --epochs 200 --storage /shared/runs
#
# Two minutes before the time limit SLURM sends SIGUSR1: the run stops with a checkpoint, the job goes back to the queue
# under its own id, and its next start continues to the same weights. One that is preempted or loses its first node (--requeue)
# continues from the newest checkpoint, since SLURM then ends Ray too. `scancel --batch --signal=TERM JOBID` stops the run with
# a checkpoint, and the job ends. The run is called slurm-JOBID unless --name is given.
#SBATCH --job-name=raylr
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -u

python=${PYTHON:-python}    # of an environment with raylr, at the same path on every node
tmp=/tmp                    # of each node; a short path, for Ray's sockets
start_s=300                 # for all nodes to join
checkpoint_s=90             # for the last checkpoint after SIGUSR1; then the one before it counts
max_restarts=100            # of the job by this script

verb=train
if [[ ${1:-} == train || ${1:-} == explore ]]; then verb=$1; shift; fi
nodes=${SLURM_JOB_NUM_NODES:-1}
restarts=${SLURM_RESTART_COUNT:-0}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
ip=$(getent ahostsv4 "$head" | awk 'NR == 1 { print $1 }')
if [[ -z $ip || ($ip == 127.* && $nodes -gt 1) ]]; then # many images map a host's own name to 127.0.x.1
    ip=$(hostname -I | awk '{ print $1 }')
fi
port=$((20000 + SLURM_JOB_ID % 6000)) # so that two jobs on one node do not meet
address=${ip:=127.0.0.1}:$port
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN # nobody else may use this cluster
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 RAY_worker_niceness=0 RAY_USAGE_STATS_ENABLED=0 PYTHONUNBUFFERED=1

# Runs on each node. SLURM_NODEID counts the nodes of a step, and each step has a letter.
node='
    folder=$1-$SLURM_NODEID python=$2 ray= is_over=no; shift 2
    trap "is_over=yes; kill \$ray" TERM INT
    "$python" -m ray.scripts.scripts start --block --temp-dir="$folder" --num-cpus="${SLURM_CPUS_PER_TASK:-$(nproc)}" \
        --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --object-store-memory=268435456 --dashboard-agent-listen-port=0 \
        --min-worker-port=0 --max-worker-port=0 "$@" &
    ray=$!
    [ $is_over = no ] || kill $ray
    wait $ray; wait $ray # a trap ends the first one
    rm -rf "$folder"
'
steps=()
step() { # LETTER, options of srun, --, options of ray start
    local letter=$1 options=() one
    shift
    while [[ $1 != -- ]]; do options+=("$1"); shift; done
    shift
    srun "${options[@]}" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 \
        bash -c "$node" node "$tmp/raylr-$SLURM_JOB_ID-$letter" "$python" "$@" &
    steps+=($!)
}

end_ray() {
    local one
    for one in "${steps[@]}"; do kill "$one" 2>/dev/null; done
    for one in {1..150}; do
        kill -0 "${steps[@]}" 2>/dev/null || break
        sleep 0.2
    done
    for one in "${steps[@]}"; do kill -KILL "$one" 2>/dev/null; done
}

stop() { # Ask the run for a checkpoint, wherever it is.
    echo "slurm: $1: the run stops with a checkpoint"
    [[ -n ${driver:-} ]] && kill -TERM "$driver" 2>/dev/null
    is_stopping=yes is_interrupted=yes
}
await() { # the end of `driver`, through signals; its exit code in `code`
    local found
    is_interrupted=yes
    while [[ $is_interrupted == yes ]]; do
        is_interrupted=no
        wait "$driver"; found=$?
        ((found == 127)) || code=$found # 127: the wait before had its code already
    done
}
is_stopping=no is_time_up=no driver=
on_usr1() {
    is_time_up=yes
    stop "the time limit is near"
    (
        sleep "$checkpoint_s" &
        trap "kill $!" TERM
        wait $! && kill -KILL "$driver"
    ) >/dev/null 2>&1 &
    watchdog=$!
}
trap on_usr1 USR1
trap 'stop "ended by SIGTERM"' TERM INT

echo "slurm: job $SLURM_JOB_ID, start $((restarts + 1)), $nodes nodes from $head, Ray at $address"
step h --nodes=1 --ntasks=1 --nodelist="$head" -- --head --node-ip-address="$ip" --port="$port" \
    --ray-client-server-port="$((port + 6000))" --include-dashboard=false
if ((nodes > 1)); then
    step w --nodes="$((nodes - 1))" --ntasks="$((nodes - 1))" --exclude="$head" -- --address="$address"
fi

code=1
"$python" -m raylr.running.wait_for_nodes "$address" "$nodes" "$start_s" &
driver=$!
await
if [[ $code == 0 && $is_stopping == no ]]; then
    "$python" -m raylr "$verb" --name "slurm-$SLURM_JOB_ID" --address "$address" "$@" &
    driver=$!
    [[ $is_stopping == yes ]] && kill -TERM "$driver"
    await
fi
driver=
[[ -n ${watchdog:-} ]] && kill "$watchdog" 2>/dev/null
end_ray

if [[ $is_time_up == yes && $code != 0 && $code != 2 ]]; then
    again="sbatch the same with --name to go on from the checkpoint"
    if ((restarts >= max_restarts)); then
        echo "slurm: the job was started $((restarts + 1)) times, which is the limit; $again"
    elif scontrol requeue "$SLURM_JOB_ID"; then
        echo "slurm: job $SLURM_JOB_ID is back in the queue and goes on from the checkpoint"
    else
        echo "slurm: job $SLURM_JOB_ID could not be requeued; $again"
    fi
fi
exit "$code"
