#!/usr/bin/env bash
# usage: examples/demo.sh NAME PORT_VARIABLE PORT    (run by the demo.sh of each example)
# KEEP=1 leaves everything running until Ctrl-C. DSPROXY names the program; without it, it is built.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
name=$1 variable=$2 port=$3
example=$here/$name
dsproxy=${DSPROXY:-}
if [ -z "$dsproxy" ]; then
  (cd "$here/.." && cargo build --release --locked --quiet)
  dsproxy=${CARGO_TARGET_DIR:-$here/../target}/release/dsproxy
fi
work=$(mktemp -d)
trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
export "$variable=${!variable:-$port}" DSPROXY_DEV_DIRECTORY="$work/stack" DB_PATH="$work/demo.db"
export RESP_PORT="${RESP_PORT:-6390}" JWT_SECRET="${JWT_SECRET:-only-for-this-demo-only-for-this-demo}"
source=postgres
grep -q '"sqlite:' "$example/proxy.toml" && source=sqlite
(cd "$work" && exec "$dsproxy" dev --source $source --config "$example/proxy.toml" --migrations "$example/migrations") >"$work/log" 2>&1 &
pid=$!
for _ in $(seq 600); do
  curl -sf "http://127.0.0.1:${!variable}/health/ready" >/dev/null && break
  kill -0 "$pid" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
# The lines of the README's shell blocks that talk to the example, as they stand there.
lines=$(awk '/^```bash/ { on = 1; next } /^```/ { on = 0 } on' "$example/README.md" | grep -v '^\(wrk\|psql\|redis-cli\|docker\) ')
[ "${!variable}" = "$port" ] || lines=${lines//localhost:$port/localhost:${!variable}}
cd "$work"
echo "$lines" | sed 's/^/    /'
bash -euo pipefail -c "$lines"
echo
if [ -n "${KEEP:-}" ]; then
  echo "$name runs on http://localhost:${!variable} (Ctrl-C stops it)"
  wait "$pid"
fi
