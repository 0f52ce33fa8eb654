package pod

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

const (
	// checkTries is how often a check is tried that cannot be made, before it is told (the kubelet's maxProbeRetries).
	checkTries = 3
	// maxOutput is how much of an answer is kept, and of an HTTP body read: the kubelet's 10 KiB.
	maxOutput = 10 << 10
	// networkChecks bounds the probes that wait for an answer: one that gets none holds a connection until its time is out.
	networkChecks = 64
)

// Checks bounds how many probes are asked at once, over all pods of an agent. nil is no bound.
type Checks struct{ exec, network chan struct{} }

// NewChecks is made once an agent. A command in a container costs the host some 20 ms of a processor, so that there are few at once.
func NewChecks() *Checks {
	return &Checks{exec: make(chan struct{}, 2*goruntime.NumCPU()), network: make(chan struct{}, networkChecks)}
}

// slot waits for the turn of a probe; false: ctx ended first.
func (c *Checks) slot(ctx context.Context, probe *corev1.Probe) (free func(), ok bool) {
	if c == nil {
		return func() {}, true
	}
	slots := c.network
	if probe.Exec != nil {
		slots = c.exec
	}
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, true
	case <-ctx.Done():
		return nil, false
	}
}

// answer is what one check found. The zero value is a pass.
type answer struct {
	failed bool
	warned bool // it passed, but not as it should
	output string
}

func failing(format string, args ...any) answer {
	return answer{failed: true, output: fmt.Sprintf(format, args...)}
}

var errNoIP = errors.New("the pod has no IP")

// check asks once, when its turn has come. An error says that it could not be asked, which is no answer.
func (p *prober) check(ctx context.Context, x probing) (a answer, err error) {
	free, ok := p.cfg.Checks.slot(ctx, x.probe)
	if !ok {
		return answer{}, ctx.Err()
	}
	defer free()
	for range checkTries {
		if a, err = ask(ctx, p.cfg.Runtime, x); err == nil || ctx.Err() != nil {
			break
		}
	}
	return a, err
}

func ask(ctx context.Context, r Runtime, x probing) (answer, error) {
	timeout := seconds(x.probe.TimeoutSeconds, 1)
	switch h := x.probe.ProbeHandler; {
	case h.Exec != nil:
		return askCommand(ctx, r, x.id, h.Exec.Command, timeout)
	case h.HTTPGet != nil:
		return askHTTP(ctx, h.HTTPGet, x.container, x.ip, timeout)
	case h.TCPSocket != nil:
		return askTCP(ctx, h.TCPSocket, x.container, x.ip, timeout)
	case h.GRPC != nil:
		return askGRPC(ctx, h.GRPC, x.ip, timeout)
	}
	return answer{}, errors.New("the probe has no handler")
}

// limitedOutput keeps the first maxOutput bytes of what several goroutines write, and swallows the rest: the writer must go on.
type limitedOutput struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *limitedOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p[:min(len(p), maxOutput-o.text.Len())])
	return len(p), nil
}

func (o *limitedOutput) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
