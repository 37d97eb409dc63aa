#!/usr/bin/env bash
# This machine's part of a Ray cluster, until Ctrl-C. Training then runs on all of them:
#
#   bash scripts/cluster/node.sh head                    # on the first machine
#   bash scripts/cluster/node.sh join FIRST:6379         # on each of the others
#   RAY_ADDRESS=FIRST:6379 bash scripts/train.sh ... trainer.nnodes=2      # on any of them, or NODES=2 scripts/models/...
#
#   PORT     of the head                              (default: 6379)
#   TIER     cpu or gpu                               (default: gpu if nvidia-smi shows one)
#   GPUS     GPUs of this machine to use              (default: all; cpu: 1, which stands for the machine)
#   PYTHON   interpreter with this repository installed, at the same path on all machines
#
# OUT, model and data have to be on a file system that all machines share. The environment of this shell is that of the run's processes on this machine. Keys of a judge are exported here.
# A run on one machine leaves a token in ~/.ray/auth_token, and a head that finds one refuses machines and commands without
# it. These scripts send it; machines without the same home need a copy of that file, or RAY_AUTH_MODE=disabled on all.
set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
case "${1:-}" in
  head) where=(--head --port="${PORT:-6379}" --include-dashboard=false) ;;
  join)
    [[ "${2:-}" == *:* ]] || die "join needs the head's address, such as node1:6379"
    where=(--address="$2")
    ;;
  -h | --help) usage && exit ;;
  *) die "say head or join HOST:PORT; --help explains" ;;
esac
choose_machine
enter_repo
agree_on_token "${2:-}"
sizes=(--num-gpus="$GPUS")
[[ "$TIER" != cpu ]] || sizes+=(--num-cpus=32) # logical ones: with too few Ray waits silently
exec "${python%/*}/ray" start "${where[@]}" "${sizes[@]}" --disable-usage-stats --block
