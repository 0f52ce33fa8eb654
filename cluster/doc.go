// Package cluster tells: it keeps the replicated store of opaque, versioned objects and, with other hosts, spreads it. It knows
// nothing of Kubernetes: keys and bodies are bytes.
package cluster
