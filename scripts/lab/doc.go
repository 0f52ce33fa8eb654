// Package lab runs a fleet of real hosts on one machine, for tests and for `make fleet`. Each has a network namespace, an address,
// a containerd, certificates, labels and a directory of its own, and runs the real picketd.
//
// The hosts hang on a bridge, the wire, in a network namespace that is nobody's; there a registry serves images under docker.io's
// name. One pair of interfaces joins the wire to the namespace that the lab was made in, so that kubectl reaches the hosts from
// there. There is no way out of the machine.
//
//	<dir>/lab.json        what Open reads
//	<dir>/lock            held by the process that the lab belongs to
//	<dir>/net/wire        the network namespaces: nsenter --net=<dir>/net/host-01
//	<dir>/net/host-01
//	<dir>/pki             the fleet's authority
//	<dir>/host-01/        all that a host has
//
// Whatever ends the process that a lab belongs to ends the lab's agents and containerds too, and Clean finds the rest by the
// directory alone. Everything here needs root, containerd, iptables and iproute2 (scripts/install-deps.sh).
package lab
