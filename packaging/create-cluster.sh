#!/usr/bin/env bash
# Makes a Redis Cluster of the given addresses: half primaries, half replicas. Harmless when there is one already.
set -euo pipefail
first=$1

state() { redis-cli -h "$first" cluster info | tr -d '\r' | sed -n 's/^cluster_state://p'; }

if [ "$(redis-cli -h "$first" cluster nodes | wc -l)" -le 1 ]; then
    redis-cli --cluster create "${@/%/:6379}" --cluster-replicas 1 --cluster-yes
fi
for _ in $(seq 60); do
    [ "$(state)" = ok ] && exit 0
    sleep 1
done
echo "the cluster is not whole after a minute: redis-cli -h $first cluster nodes" >&2
exit 1
