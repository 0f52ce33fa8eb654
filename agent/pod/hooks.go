package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/runtime"
)

// runHook runs a postStart or preStop hook in or at a container, as the kubelet does (pkg/kubelet/lifecycle): a command must exit
// with 0, an HTTP server must answer, whatever it says. ctx is the time it has. ip is the pod's. The error is what an event says.
func (w *Worker) runHook(ctx context.Context, handler corev1.LifecycleHandler, id string, container *corev1.Container, ip string) error {
	var what string
	var err error
	switch {
	case handler.Exec != nil:
		what = fmt.Sprintf("Exec lifecycle hook (%v)", handler.Exec.Command)
		err = w.hookCommand(ctx, id, handler.Exec.Command)
	case handler.HTTPGet != nil:
		what = fmt.Sprintf("HTTP lifecycle hook (%s)", handler.HTTPGet.Path)
		err = w.hookHTTP(ctx, handler.HTTPGet, container, ip)
	case handler.Sleep != nil:
		what = fmt.Sprintf("Sleep lifecycle hook (%d)", handler.Sleep.Seconds)
		if !pause(ctx, time.Duration(handler.Sleep.Seconds)*time.Second) {
			err = errors.New("container terminated before sleep hook finished")
		}
	default:
		what, err = "Lifecycle hook", errors.New("invalid handler: there is only exec, httpGet and sleep") // as tcpSocket always was
	}
	if err != nil {
		return fmt.Errorf("%s for container %q failed: %w", what, container.Name, err)
	}
	return nil
}

func (w *Worker) hookCommand(ctx context.Context, id string, command []string) error {
	var output limitedOutput
	code, err := w.cfg.Runtime.Exec(ctx, id, runtime.ExecConfig{Command: command, Stdout: &output, Stderr: &output})
	if err == nil && code != 0 {
		err = fmt.Errorf("command '%s' exited with %d: %s", strings.Join(command, " "), code, output.String())
	}
	return err
}

// hookHTTP makes a GET request. A server that is asked by HTTPS and does not speak it is asked without: hooks once ignored the scheme.
func (w *Worker) hookHTTP(ctx context.Context, get *corev1.HTTPGetAction, c *corev1.Container, ip string) error {
	request, err := httpRequest(ctx, get, c, ip, hookAgent)
	if err != nil {
		return err
	}
	if err = call(request); !errors.Is(err, http.ErrSchemeMismatch) {
		return err
	}
	request = request.Clone(ctx)
	request.URL.Scheme = "http"
	request.Header.Del("Authorization") // it was to be sent encrypted
	if call(request) != nil {
		return err
	}
	w.log.Warn("request to HTTPS lifecycle hook got HTTP response, retry with HTTP succeeded", "container", c.Name, "host", request.URL.Host)
	return nil
}

// call makes a request whose answer is of no interest.
func call(request *http.Request) error {
	client := http.Client{Transport: transport, CheckRedirect: onThisHost}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxOutput)
	return nil
}
