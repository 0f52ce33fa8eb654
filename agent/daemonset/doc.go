// Package daemonset decides: where a DaemonSet's pods belong, when one is started, stopped or replaced, and what the status
// says. It is pure: no clock, randomness, I/O or goroutines (a test walks the syntax tree); time is an argument and a decision
// is data that carries its reason.
package daemonset
