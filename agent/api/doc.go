// Package api serves the Kubernetes-shaped HTTP API (../docs and KUBECTL.md's contract): discovery, OpenAPI, get, list, watch,
// tables, create, update, patch, delete, logs and exec, with client certificates only. It reads an immutable cache that the agent
// fills and hands every write to the agent.
package api
