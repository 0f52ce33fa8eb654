// Package pod runs one pod's life on this host: it turns a corev1.Pod into containers of package runtime, restarts them with
// the kubelet's back-off, and reports a corev1.PodStatus. One worker (one goroutine, one owner of the state) per pod; the rules
// are in the pure state machine, effects in the worker.
package pod
