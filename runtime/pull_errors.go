package runtime

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// unreachable says whether an error means that no registry could be asked: no connection, no name, no answer, or one that says
// "not now". A certificate that is not trusted is not among them: whoever is there, it is not known to be the registry.
func unreachable(err error) bool {
	if status := (remoteerrors.ErrUnexpectedStatus{}); errors.As(err, &status) {
		return unable(status.StatusCode)
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Op != "remote error" && op.Op != "local error" // TLS alerts: there is somebody
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return true
	}
	// A bare EOF may be containerd's; the registry's is one of a request.
	request, silent := (*url.Error)(nil), (*silentError)(nil)
	return errors.As(err, &silent) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &request) && errors.Is(request, io.EOF)
}

// unable says whether a status is about the registry's state and not about the image or the login.
func unable(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// refused says whether another login may fare better. A registry may deny that there is what it does not show.
func refused(err error) bool {
	if status := (remoteerrors.ErrUnexpectedStatus{}); errors.As(err, &status) {
		return status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden
	}
	return errors.Is(err, docker.ErrInvalidAuthorization) || errdefs.IsNotFound(err)
}

// pullError is an error in words for a person: what the registry said, and no secrets. Its cause can still be asked for.
type pullError struct {
	text  string
	cause error
}

func (e *pullError) Error() string { return e.text }
func (e *pullError) Unwrap() error { return e.cause }

// pullFailure puts into words why an image could not be fetched.
func pullFailure(image imageName, err error) error {
	return &pullError{"cannot pull " + image.record + ": " + explain(err), err}
}

func explain(err error) string {
	status := remoteerrors.ErrUnexpectedStatus{}
	switch {
	case errors.As(err, &status):
		text := address(status.RequestURL) + " answered " + status.Status
		if said := (docker.Errors{}); errors.As(err, &said) {
			text += ": " + oneLine(said.Error())
		}
		return text
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return "the registry wants a login (imagePullSecrets), or refuses the one it got: " + text(err)
	case noSpace(err):
		return "containerd's disk is full: " + text(err)
	}
	return text(err)
}

// noSpace says whether containerd's disk is full: it can only be read in its words.
func noSpace(err error) bool { return strings.Contains(err.Error(), "no space left on device") }

// text is the error's own, without what URLs carry in their queries: keys to storage, mostly.
func text(err error) string {
	s := err.Error()
	if u := (*url.Error)(nil); errors.As(err, &u) {
		s = strings.ReplaceAll(s, u.URL, address(u.URL))
	}
	return oneLine(s)
}

// address is a URL's host and path.
func address(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the registry"
	}
	return u.Host + u.Path
}

// longest is how much of what a registry says is passed on, in bytes.
const longest = 500

func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }), " ")
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "..."
	}
	return s
}
