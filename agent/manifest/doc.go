// Package manifest reads what users write: it decodes, defaults and validates Kubernetes objects, lists what a pod asks for
// that picket cannot do, hashes content canonically, merges as kubectl apply does, and watches the manifests directory.
//
// The walk of a file: split cuts it into documents, parse decodes each strictly into typed objects (errors with path and line),
// check holds a defaulted copy against Validate. Decode returns the objects as written, each with its own text in kubectl's
// last-applied annotation; Apply merges one into what is stored and returns it defaulted and validated; Encode makes the body
// to store and Hash the content's identity. A request to the API takes DecodeObject, Default and Validate instead.
//
// What becomes of every field of a DaemonSet is said in one place, support.go: honoured, warned about, or refused. A test walks
// the API's types, so that a field cannot be forgotten.
package manifest
