#!/usr/bin/env bash
# A command of divkd over machines that one reaches by ssh without a password, and that see this folder and this
# environment under the same paths. Give the machines, then what divkd is to do:
#     docs/scale/ssh.sh "alpha beta" train cifar --preset cpu --data-dir data --out runs/cifar10 --resume
set -euo pipefail
machines=$1
shift
bin=$(dirname "$(command -v divkd)")
host=${HOST:-$(hostname -f)}      # under which the machines reach this one
address=tcp://$host:${PORT:-8786}
trap 'kill $(jobs -p) 2>/dev/null' EXIT # workers that have lost their scheduler end by themselves

"$bin/dask" scheduler --host "$host" --port "${PORT:-8786}" --no-dashboard &
for machine in $machines; do
    # a worker a core, of one thread each
    ssh "$machine" "cd '$PWD' && exec '$bin/dask' worker $address --nworkers ${WORKERS:-\$(nproc)} --nthreads 1 \
        --no-dashboard --death-timeout 120 --local-directory \${TMPDIR:-/tmp}" &
done
sleep 5
"$bin/divkd" "$@" --dask "$address"
