#!/bin/sh
# usage: run.sh BASE_URL PATH    (see check.mjs; installs jsdom once per version of the pin file, into target/clients)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
home=${CLIENTS_DIR:-$here/../../target/clients}
mkdir -p "$home"
home=$(cd "$home" && pwd)
exec 9>"$home/pages-lock"
flock 9
dir=$home/pages-$(sha256sum "$here/package.json" | cut -c1-16)
if [ ! -e "$dir/installed" ]; then
    rm -rf "$dir"
    mkdir -p "$dir"
    cp "$here/package.json" "$dir/"
    npm install --silent --no-audit --no-fund --prefix "$dir" >&2
    # The stamp is written last: an install that was cut short is done again.
    touch "$dir/installed"
fi
flock -u 9
exec 9>&-
PAGES_MODULES=$dir/package.json exec node "$here/check.mjs" "$1" "$2"
