#!/bin/sh
# usage: schemathesis.sh URL_OF_openapi.json SECONDS SEED [HEADER]    (all checks; exit code 0: no failure was found)
# Installs itself once per version of the pin file, into target/clients.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
home=${CLIENTS_DIR:-$here/../../target/clients}
mkdir -p "$home"
home=$(cd "$home" && pwd)

# Tests run at the same time, and share what is installed: one of them installs it, the others wait. The stamp is written last:
# an install that was cut short is done again.
exec 9>"$home/schemathesis-lock"
flock 9
dir=$home/schemathesis-$(sha256sum "$here/requirements.txt" | cut -c1-16)
if [ ! -e "$dir/installed" ]; then
    rm -rf "$dir"
    python3 -m venv "$dir"
    "$dir/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    touch "$dir/installed"
fi
flock -u 9
exec 9>&-

url=$1 seconds=$2 seed=$3
shift 3
[ $# -eq 0 ] || set -- --header "$1"
# The folder of examples that failed before belongs to this run: another one may go on at the same time.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
SCHEMATHESIS_HOOKS='' "$dir/bin/st" run "$url" --max-time "$seconds" --seed "$seed" --checks all --no-color \
    --request-timeout 10 --continue-on-failure --warnings off "$@"
