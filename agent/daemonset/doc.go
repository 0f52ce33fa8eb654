// Package daemonset decides: where a DaemonSet's pods belong, when one is started, stopped or replaced, and what the status says;
// how a host's word of that travels, and what others make of it: the fleet's status and the Pods they show. It is pure: no clock,
// randomness, I/O or goroutines (a test walks the syntax tree); time is an argument and a decision is data that carries its reason.
package daemonset
