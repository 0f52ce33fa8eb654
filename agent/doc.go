// Package agent is the trunk. One loop owns the state: it takes writes (from the API and from manifest files), asks the pure core
// (package daemonset) what to do, makes the decision durable, hands it to one worker per pod (package pod) and publishes what is
// into the API's cache. Everything else reads that cache.
//
// The path of a manifest: files.go or backend.go -> write.go -> cluster.Store -> desired.go -> turn.go (daemonset.Plan) -> pods.go
// (pod.Worker) -> package runtime -> containerd; what happened comes back as a pod's status to the loop.
package agent
