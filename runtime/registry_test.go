package runtime

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slowly is a registry that takes its time.
type slowly struct {
	header time.Duration // until it answers
	byteIn time.Duration // until each byte of its answer
	sent   int
}

func (s *slowly) RoundTrip(request *http.Request) (*http.Response, error) {
	select {
	case <-time.After(s.header):
		return &http.Response{StatusCode: http.StatusOK, Body: &slowBody{s, request}, Request: request}, nil
	case <-request.Context().Done():
		return nil, request.Context().Err()
	}
}

type slowBody struct {
	of      *slowly
	request *http.Request
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.of.sent == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(b.of.byteIn):
		b.of.sent--
		return copy(p, "x"), nil
	case <-b.request.Context().Done():
		return 0, b.request.Context().Err()
	}
}

func (b *slowBody) Close() error { return nil }

// A registry may take for ever as long as something comes; it is given up when nothing does.
func TestPatience(t *testing.T) {
	for name, c := range map[string]struct {
		patience time.Duration
		slowly
		silent bool
	}{
		"slow but alive":       {time.Minute, slowly{50 * time.Second, 50 * time.Second, 20}, false},
		"no answer":            {2 * time.Second, slowly{3 * time.Second, 0, 1}, true},
		"stops in the middle":  {time.Minute, slowly{time.Second, 2 * time.Minute, 1}, true},
		"just before too late": {2 * time.Second, slowly{2*time.Second - 1, 2*time.Second - 1, 3}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &registry{}
				g.wait(c.patience)
				want := c.sent
				client := &http.Client{Transport: &c.slowly}
				if err := g.watch(client); err != nil {
					t.Fatal(err)
				}
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://registry.lan/v2/", strings.NewReader(""))
				if err != nil {
					t.Fatal(err)
				}
				response, err := client.Do(request)
				n := 0
				if err == nil {
					defer response.Body.Close()
					for {
						p := make([]byte, 1)
						if _, err = response.Body.Read(p); err != nil {
							break
						}
						n++
						time.Sleep(time.Hour) // a reader that is slow, too
					}
				}
				silent := (*silentError)(nil)
				if got := errors.As(err, &silent); got != c.silent {
					t.Fatalf("%v", err)
				}
				if c.silent && !unreachable(err) {
					t.Errorf("%v is not taken for a registry that cannot be reached", err)
				}
				if !c.silent && (n != want || err != io.EOF) {
					t.Errorf("%d bytes of %d came: %v", n, want, err)
				}
			})
		})
	}
}
