package pod

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/picketd/picket/runtime"
)

// What the handlers of probes do and say is the kubelet's (pkg/probe), so that a daemon sees no difference and an event reads the same.

const (
	probeAgent = "kube-probe/picket"
	hookAgent  = "kube-lifecycle/picket"
)

// dialer connects to what is asked once and then left. (The kubelet sets SO_LINGER to 1 s, which is to shorten TIME-WAIT and does not:
// as many sockets are left, and close waits for the other side.)
var dialer = &net.Dialer{KeepAlive: -1}

// transport keeps no connection, asks no proxy and believes every certificate.
var transport = &http.Transport{
	DialContext: dialer.DialContext, DisableKeepAlives: true, DisableCompression: true, ForceAttemptHTTP2: true,
	TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
}

// askCommand runs a command in the container. Its time is over: it is killed, and that is a failure.
func askCommand(ctx context.Context, r Runtime, id string, command []string, timeout time.Duration) (answer, error) {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var output limitedOutput
	code, err := r.Exec(within, id, runtime.ExecConfig{Command: command, Stdout: &output, Stderr: &output})
	switch {
	case err == nil:
		return answer{failed: code != 0, output: output.String()}, nil
	case errors.Is(err, runtime.ErrUnavailable), errors.Is(err, runtime.ErrNotFound), within.Err() == nil:
		return answer{}, err
	}
	return failing("command timed out: %q timed out after %v", strings.Join(command, " "), timeout), nil
}

// askHTTP makes a GET request: 200 to 399 pass. A redirect to another host is not followed, passes and is told.
func askHTTP(ctx context.Context, get *corev1.HTTPGetAction, c *corev1.Container, ip string, timeout time.Duration) (answer, error) {
	request, err := httpRequest(ctx, get, c, ip, probeAgent)
	if err != nil {
		return answer{}, err
	}
	client := http.Client{Transport: transport, Timeout: timeout, CheckRedirect: onThisHost}
	response, err := client.Do(request)
	if err != nil {
		return failing("%v", err), nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxOutput))
	switch code := response.StatusCode; {
	case err != nil:
		return answer{}, err
	case code < http.StatusOK || code >= http.StatusBadRequest:
		return failing("HTTP probe failed with statuscode: %d", code), nil
	case code >= http.StatusMultipleChoices:
		return answer{warned: true, output: "Probe terminated redirects, Response body: " + string(body)}, nil
	}
	return answer{}, nil
}

// httpRequest is what an httpGet of a probe or a hook asks for.
func httpRequest(ctx context.Context, get *corev1.HTTPGetAction, c *corev1.Container, ip, agent string) (*http.Request, error) {
	address, err := addressOf(get.Host, ip, get.Port, c)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(get.Path) // it may have a query
	if err != nil {
		target = &url.URL{Path: get.Path}
	}
	target.Scheme, target.Host = strings.ToLower(string(get.Scheme)), address
	if target.Scheme == "" {
		target.Scheme = "http"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range get.HTTPHeaders {
		request.Header.Add(h.Name, h.Value)
	}
	setDefault(request.Header, "User-Agent", agent)
	setDefault(request.Header, "Accept", "*/*")
	request.Host = request.Header.Get("Host")
	return request, nil
}

// setDefault sets a header that is not given; one that is given empty is not sent.
func setDefault(h http.Header, name, value string) {
	switch {
	case h.Values(name) == nil:
		h.Set(name, value)
	case h.Get(name) == "" && name == "Accept":
		h.Del(name)
	}
}

// onThisHost follows redirects to the same host, ten at most.
func onThisHost(request *http.Request, via []*http.Request) error {
	if request.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

// askTCP passes when a connection can be made.
func askTCP(ctx context.Context, socket *corev1.TCPSocketAction, c *corev1.Container, ip string, timeout time.Duration) (answer, error) {
	address, err := addressOf(socket.Host, ip, socket.Port, c)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return failing("%v", err), nil
	}
	conn.Close()
	return answer{}, nil
}

// addressOf is whom to ask: the host that the handler names or else the pod, and its port, by number or by its name in the container.
func addressOf(host, ip string, port intstr.IntOrString, c *corev1.Container) (string, error) {
	if host == "" {
		host = ip
	}
	if host == "" {
		return "", errNoIP
	}
	number, err := portNumber(port, c)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), nil
}

func portNumber(port intstr.IntOrString, c *corev1.Container) (int, error) {
	number := port.IntValue() // of a text that is a number, too
	if port.Type == intstr.String {
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				return int(p.ContainerPort), nil
			}
		}
	}
	if number < 1 || number > 65535 {
		return 0, fmt.Errorf("container %s has no port %q", c.Name, port.String())
	}
	return number, nil
}
