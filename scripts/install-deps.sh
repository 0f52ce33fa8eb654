#!/usr/bin/env bash
# Installs from Debian what running and testing need and this machine lacks; with everything there it does nothing.
# No service is started, none that runs is touched: `make run` and the tests start a containerd of their own.
set -euo pipefail

have() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }
have_cni() {
	local dir
	for dir in /opt/cni/bin /usr/lib/cni /usr/libexec/cni; do
		[ -x "$dir/bridge" ] && [ -x "$dir/host-local" ] && [ -x "$dir/portmap" ] && return
	done
	return 1
}
have_static_busybox() { have busybox && ! readelf_interp "$(command -v busybox)"; }
# A static program names no interpreter: "ld-linux" appears in no other place of the first page.
readelf_interp() { head -c 4096 "$1" | grep -aq 'ld-linux'; }

missing=()
have containerd && have containerd-shim-runc-v2 || missing+=(containerd)
have runc || missing+=(runc)
have iptables || missing+=(iptables)
have ip || missing+=(iproute2) # the lab makes networks with it, the tests look at them
have_cni || missing+=(containernetworking-plugins)
have_static_busybox || missing+=(busybox-static)
[ ${#missing[@]} -gt 0 ] || exit 0

if ! have apt-get; then
	echo "install-deps: this machine lacks ${missing[*]} (Debian's names) and has no apt-get: install them by hand" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "install-deps: this machine lacks ${missing[*]}: run again as root, or: apt-get install ${missing[*]}" >&2
	exit 1
fi

# Debian's way to say that no package may start or restart a service while it is installed.
policy=/usr/sbin/policy-rc.d
restore() {
	rm -f "$policy"
	if [ -e "$policy.picket" ]; then mv "$policy.picket" "$policy"; fi
}
trap restore EXIT
[ ! -e "$policy" ] || mv "$policy" "$policy.picket"
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

echo "install-deps: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends --no-upgrade "${missing[@]}" >&2
