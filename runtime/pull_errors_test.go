package runtime

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

func answered(code int, text string) error {
	return remoteerrors.ErrUnexpectedStatus{
		Status: fmt.Sprintf("%d %s", code, text), StatusCode: code, RequestMethod: "GET",
		RequestURL: "https://me:hunter2@quay.io/v2/app/manifests/v1?sig=hunter2",
	}
}

func TestUnreachable(t *testing.T) {
	inURL := func(err error) error {
		return fmt.Errorf("failed to do request: %w", &url.Error{Op: "Head", URL: "https://quay.io/v2/", Err: err})
	}
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"refused":             {inURL(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), true},
		"reset":               {inURL(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), true},
		"no such host":        {inURL(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}), true},
		"cut off":             {inURL(io.ErrUnexpectedEOF), true},
		"closed":              {inURL(io.EOF), true},
		"containerd's stream": {fmt.Errorf("failed to send write: %w", io.EOF), false},
		"deadline":            {inURL(context.DeadlineExceeded), true},
		"500":                 {fmt.Errorf("a: %w", answered(500, "Internal Server Error")), true},
		"503 with words":      {errors.Join(answered(503, "Service Unavailable"), docker.Errors{errors.New("busy")}), true},
		"429":                 {answered(429, "Too Many Requests"), true},
		"401":                 {answered(401, "Unauthorized"), false},
		"403":                 {answered(403, "Forbidden"), false},
		"404":                 {fmt.Errorf("a: %w", errdefs.ErrNotFound), false},
		"alert":               {inURL(&net.OpError{Op: "remote error", Err: tls.AlertError(42)}), false},
		"unknown certificate": {inURL(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), false},
		"digest":              {fmt.Errorf("unexpected commit digest: %w", errdefs.ErrFailedPrecondition), false},
	} {
		if got := unreachable(c.err); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// What a user is shown names the image and says what the registry said, on one line, and gives nothing away.
func TestPullFailuresInWords(t *testing.T) {
	image, err := parseImageName("quay.io/team/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	storage := "https://storage.example.com/blob?X-Amz-Signature=hunter2"
	for want, cause := range map[string]error{
		"cannot pull quay.io/team/app:v1: quay.io/v2/app/manifests/v1 answered 403 Forbidden: denied: no entry in your country": errors.Join(
			answered(403, "Forbidden"), docker.Errors{docker.ErrorCodeDenied.WithMessage("no entry\nin your country")}),
		"cannot pull quay.io/team/app:v1: failed: Get \"storage.example.com/blob\": EOF":                fmt.Errorf("failed: %w", &url.Error{Op: "Get", URL: storage, Err: io.EOF}),
		"cannot pull quay.io/team/app:v1: containerd's disk is full: write /x: no space left on device": errors.New("write /x: no space left on device"),
	} {
		got := pullFailure(image, cause)
		if got.Error() != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if !errors.Is(got, cause) && !errors.Is(got, errors.Unwrap(cause)) {
			t.Errorf("%v lost its cause", got)
		}
	}
	long := pullFailure(image, errors.Join(answered(403, "Forbidden"), docker.Errors{docker.ErrorCodeDenied.WithMessage(strings.Repeat("ä", 10000))}))
	if n := len(long.Error()); n > 2*longest {
		t.Errorf("%d bytes", n)
	}
}
