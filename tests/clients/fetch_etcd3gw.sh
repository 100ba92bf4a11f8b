#!/usr/bin/env bash
# python3-etcd3gw of Debian 13, which carries tests that speak to a server, unpacked into a directory. Not installed: the
# system stays Debian 12's.
#   fetch_etcd3gw.sh DIRECTORY
set -euo pipefail
dir=$1
mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial"
uri=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -1)
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$key] $uri trixie main" >"$dir/apt/sources.list"
options=(-o Dir::Etc::SourceList="$dir/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$dir/apt/lists"
         -o Dir::Cache::Archives="$dir/apt/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
apt-get "${options[@]}" -qq update
cd "$dir"
apt-get "${options[@]}" -qq download python3-etcd3gw
dpkg-deb -x python3-etcd3gw_*.deb unpacked
mv unpacked/usr/lib/python3/dist-packages/etcd3gw .
rm -rf unpacked apt ./*.deb
