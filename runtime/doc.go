// Package runtime does: it pulls images, makes pods' namespaces and networks, creates, starts, signals and removes containers
// through containerd, and reports what happened to them. It decides nothing; the caller is agent/pod.
//
// Every call is idempotent: creating what exists, starting what runs and removing what is gone succeed. Errors of the kinds a
// caller acts on are the sentinels of errors.go.
package runtime
