#!/usr/bin/env bash
# Installs from Debian 12's packages what is missing to build, run and test Trine. Run by `make run` and `make check`;
# does nothing, quickly, when everything is there.
#
#   deploy/deps.sh            everything          deploy/deps.sh --print     the list, one a line
set -euo pipefail

# Names with "|" are alternatives: Debian 12's name first, its successor's second.
build=(gcc libc6-dev make pkg-config libnng-dev "libmsgpack-dev|libmsgpack-c-dev" libsodium-dev libcrypt-dev libleveldb-dev libssl-dev
       libnghttp2-dev libwslay-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler libuv1-dev libsystemd-dev libisal-dev
       uthash-dev libbsd-dev libsmartcols-dev libjansson-dev libyaml-dev)
check=(libcriterion-dev libnanomsg-dev clang "libclang-rt-14-dev|libclang-rt-dev" nng-utils nghttp2-client curl jq openssl procps diffutils python3
       iproute2 etcd-client etcd-server systemd man-db groff-base)

if [ "${1:-}" = --print ]; then
    printf '%s\n' "${build[@]}" "${check[@]}"
    exit 0
fi

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for names in "${build[@]}" "${check[@]}"; do
    found=
    IFS='|' read -ra alternatives <<<"$names"
    for name in "${alternatives[@]}"; do
        if installed "$name"; then found=yes; break; fi
    done
    [ -n "$found" ] || missing+=("$names")
done
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "deps: missing: ${missing[*]}; run this as root or install sudo" >&2; exit 1; }
    sudo=sudo
fi
echo "deps: installing ${missing[*]}" >&2
$sudo apt-get update -qq

want=()
for names in "${missing[@]}"; do
    IFS='|' read -ra alternatives <<<"$names"
    pick=${alternatives[0]}
    for name in "${alternatives[@]}"; do
        if apt-cache show "$name" >/dev/null 2>&1; then pick=$name; break; fi
    done
    want+=("$pick")
done

# etcd is here to be compared with; its service must not start and take port 2379.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod 755 $policy
    trap '$sudo rm -f $policy' EXIT
fi
new_etcd=
installed etcd-server || new_etcd=yes
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${want[@]}" >/dev/null
if [ -n "$new_etcd" ] && [ -d /run/systemd/system ]; then
    $sudo systemctl disable --quiet etcd.service || echo "deps: note: etcd.service stays enabled" >&2
fi
