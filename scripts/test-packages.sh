#!/usr/bin/env bash
# Fetches the Debian packages whose programs the tests run in containers (agent/real_daemons_test.go), and unpacks them into the
# user's cache. Nothing is installed: no machine gets a syslog daemon for a test. With everything there it does nothing.
set -euo pipefail

packages=(rsyslog libestr0 libfastjson4 prometheus-node-exporter)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/picket/debian
[ "$(cat "$dir/.packages" 2>/dev/null)" != "${packages[*]}" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "test-packages: fetching ${packages[*]} needs Debian's apt-get: without it some tests of package agent fail" >&2
	exit 0
fi
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT

echo "test-packages: fetching ${packages[*]}" >&2
[ "$(id -u)" != 0 ] || apt-get update -qq
(cd "$new" && apt-get download -qq -o APT::Sandbox::User=root "${packages[@]}")
mkdir -p "$new/root"
for package in "$new"/*.deb; do dpkg-deb --extract "$package" "$new/root"; done
echo "${packages[*]}" >"$new/root/.packages"
mkdir -p "$(dirname "$dir")"
rm -rf "$dir"
cp -a "$new/root" "$dir"
