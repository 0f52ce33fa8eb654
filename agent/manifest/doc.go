// Package manifest reads what users write: it decodes, defaults and validates Kubernetes objects, lists what a pod asks for
// that picket cannot do, hashes content canonically, merges as kubectl apply does, and watches the manifests directory.
package manifest
