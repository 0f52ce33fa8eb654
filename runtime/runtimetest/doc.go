// Package runtimetest runs package runtime's surroundings for tests, benchmarks and `make run`: a private containerd, a registry,
// images made from the host's static busybox, and a fake of the runtime itself. Nothing here touches a containerd, a registry or
// a network that was there before.
package runtimetest
