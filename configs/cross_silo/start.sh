#!/usr/bin/env bash
# Starts the server with the plug-in, waits for its port, starts three clients and a poisoner without it.
# Stops everything that it started, however it ends; fails when one of them fails.
#   configs/cross_silo/start.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")"
python=${1:-python}
port=$(sed -n 's/^0,0,[^,]*,//p' grpc_ipconfig.csv)
pids=()
trap '[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true' EXIT

"$python" -m fedml_gradcam_ae main.py --cf fedml_config.yaml --rank 0 --role server &
pids+=($!)
for _ in $(seq 120); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    kill -0 "${pids[0]}" 2>/dev/null || { echo "the server did not start" >&2; exit 1; }
    sleep 1
done
for rank in 1 2 3 4; do
    script=main.py
    [ "$rank" = 4 ] && script=poisoner.py
    "$python" "$script" --cf fedml_config.yaml --rank "$rank" --role client >"client-$rank.log" 2>&1 &
    pids+=($!)
done
for pid in "${pids[@]}"; do
    wait "$pid" || { echo "process $pid failed: see client-*.log" >&2; exit 1; }
done
pids=()
