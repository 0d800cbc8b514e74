#!/bin/sh
# Runs every client in this folder, with its default settings, against PROXY_ADDR (host:port, default 127.0.0.1:6380).
# Clients are installed once per version of the pin files, into target/clients. Arguments choose clients: redis_py ioredis node_redis.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
home=${CLIENTS_DIR:-$here/../../target/clients}
mkdir -p "$home"
home=$(cd "$home" && pwd)

# A stamp is written last: an install that was cut short is done again.
hash_of() { sha256sum "$1" | cut -c1-16; }

# Tests run at the same time, and share what is installed: one of them installs it, the others wait.
exec 9>"$home/lock"

python_home() {
    flock 9
    dir=$home/python-$(hash_of "$here/requirements.txt")
    if [ ! -e "$dir/installed" ]; then
        rm -rf "$dir"
        python3 -m venv "$dir"
        "$dir/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
        touch "$dir/installed"
    fi
    flock -u 9
}

# The clients need Node 20; Debian 12 has 18, whose npm can fetch a newer one.
node_program() {
    node=node
    major=$(node -p 'process.versions.node.split(".")[0]')
    [ "$major" -ge 20 ] && return
    flock 9
    node_dir=$home/node-program-20.9.0
    if [ ! -e "$node_dir/installed" ]; then
        rm -rf "$node_dir"
        mkdir -p "$node_dir"
        npm install --silent --no-audit --no-fund --prefix "$node_dir" node@20.9.0 >&2
        touch "$node_dir/installed"
    fi
    flock -u 9
    node=$node_dir/node_modules/node/bin/node
}

node_home() {
    flock 9
    dir=$home/node-$(hash_of "$here/package.json")
    if [ ! -e "$dir/installed" ]; then
        rm -rf "$dir"
        mkdir -p "$dir"
        cp "$here/package.json" "$dir/"
        npm install --silent --no-audit --no-fund --prefix "$dir" >&2
        touch "$dir/installed"
    fi
    flock -u 9
}

failed=0
for client in ${*:-redis_py ioredis node_redis}; do
    case $client in
    redis_py)
        python_home
        "$dir/bin/python" "$here/redis_py.py" || failed=1
        ;;
    ioredis | node_redis)
        node_program
        node_home
        CLIENT_MODULES=$dir/package.json "$node" "$here/$client.mjs" || failed=1
        ;;
    *)
        echo "$client: no such client; choose from redis_py ioredis node_redis" >&2
        exit 2
        ;;
    esac
done
exit $failed
