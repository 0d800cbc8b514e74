#!/usr/bin/env bash
# Installs what is missing of the programs dsproxy runs (Debian packages), and nothing else: no service is started or
# enabled, no database cluster is created, and when nothing is missing apt is not touched.
#
# usage: scripts/setup.sh [--bench | --test]
#   --bench: also the proxies that `make bench` compares with, and the HTTP load generator of `make bench-http`
#   --test: also what the clients of tests/clients and tests/examples run on
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }

has() {
    command -v "$1" >/dev/null 2>&1 && return
    # Debian keeps server programs out of a user's PATH.
    local candidate
    for candidate in "/usr/sbin/$1" "/sbin/$1" /usr/lib/postgresql/*/bin/"$1"; do
        [ -x "$candidate" ] && return
    done
    return 1
}

packages=()
need() { # PROGRAM PACKAGE
    has "$1" || packages+=("$2")
}

need setpriv util-linux
need cc build-essential
need redis-server redis-server
need redis-cli redis-tools
need initdb postgresql
if [ "${1:-}" = --bench ]; then
    need haproxy haproxy
    need nutcracker nutcracker
    need wrk wrk
    need redis-benchmark redis-tools
    need python3 python3
fi
if [ "${1:-}" = --test ]; then
    need node nodejs
    need npm npm
    # Debian keeps venv apart from python3; its module is there without it, and fails.
    python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3 python3-venv)
fi
[ ${#packages[@]} -eq 0 ] && exit 0

say "missing: ${packages[*]}"
if ! command -v apt-get >/dev/null; then
    say "there is no apt-get here; install these yourself: ${packages[*]}"
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        say "neither root nor sudo; run as root: apt-get install ${packages[*]}"
        exit 1
    fi
    as_root=(sudo)
    # Without a terminal nobody can type a password.
    [ -t 0 ] || as_root=(sudo -n)
    if ! "${as_root[@]}" true; then
        say "sudo refused; run as root: apt-get install ${packages[*]}"
        exit 1
    fi
fi

# The rest runs as root in one go, so that what it changes for the time of the installation is changed back.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive bash -euo pipefail -s -- "${packages[@]}" <<'ROOT'
policy=/usr/sbin/policy-rc.d
createcluster=/etc/postgresql-common/createcluster.conf
log=$(mktemp)
had_policy=no had_createcluster=no

restore() {
    code=$?
    if [ "$had_policy" = yes ]; then mv -f "$policy.dsproxy-setup" "$policy"; else rm -f "$policy"; fi
    if [ "$had_createcluster" = yes ]; then mv -f "$createcluster.dsproxy-setup" "$createcluster"; fi
    if [ "$code" -ne 0 ]; then tail -n 40 "$log" >&2; fi
    rm -f "$log"
}

apt() {
    printf 'setup: apt-get %s\n' "$*" >&2
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" </dev/null >>"$log" 2>&1
}

if [ -e "$policy" ]; then
    mv "$policy" "$policy.dsproxy-setup"
    had_policy=yes
fi
trap restore EXIT
# Debian's own way to say "start no service now" (see invoke-rc.d).
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

# Lists that are there already may do; they may also be too old.
install() { apt install --yes --no-install-recommends "$@"; }
refreshed=no
try() { install "$@" || { [ "$refreshed" = no ] && apt update && refreshed=yes && install "$@"; }; }

case " $* " in *" postgresql "*)
    # Its package would create and enable a cluster `main` on port 5432.
    try postgresql-common
    if [ -f "$createcluster" ]; then
        cp -p "$createcluster" "$createcluster.dsproxy-setup"
        had_createcluster=yes
        printf '\ncreate_main_cluster = false\n' >>"$createcluster"
    fi
esac
try "$@"

# Nor at the next boot.
if [ -d /run/systemd/system ]; then
    for package in "$@"; do
        case $package in redis-server | haproxy | nutcracker) systemctl disable "$package" >>"$log" 2>&1 || true ;; esac
    done
fi
ROOT
say "installed: ${packages[*]}"
