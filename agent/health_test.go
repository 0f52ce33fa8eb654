package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ask sends one request to the mux as if from remote.
func ask(h http.Handler, method, path, remote string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = remote
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func passes(context.Context) error { return nil }

func fails(text string) func(context.Context) error {
	return func(context.Context) error { return errors.New(text) }
}

func testMux(live, ready []healthCheck) http.Handler {
	reg, _ := register(testSnapshot())
	return newHealthMux(health{Metrics: reg, Live: live, Ready: ready})
}

func TestHealthAndReadiness(t *testing.T) {
	for _, c := range []struct {
		name   string
		path   string
		live   []healthCheck
		ready  []healthCheck
		code   int
		answer string
	}{
		{"alive", "/healthz", []healthCheck{{"loop", passes}}, []healthCheck{{"store", fails("no")}}, 200, "[+]loop ok\nhealthz check passed\n"},
		{"not alive", "/healthz", []healthCheck{{"loop", fails("stuck")}}, nil, 500, "[-]loop failed: stuck\nhealthz check failed\n"},
		{
			"ready", "/readyz?verbose",
			[]healthCheck{{"loop", fails("stuck")}},
			[]healthCheck{{"containerd", passes}, {"store", passes}},
			200,
			"[+]containerd ok\n[+]store ok\nreadyz check passed\n",
		},
		{
			"not ready: every check is listed", "/readyz", nil,
			[]healthCheck{{"containerd", fails("cannot connect:\n\tno such file")}, {"store", passes}, {"plan", fails("not yet")}},
			500,
			"[-]containerd failed: cannot connect: no such file\n[+]store ok\n[-]plan failed: not yet\nreadyz check failed\n",
		},
		{"nothing to check", "/readyz", nil, nil, 200, "readyz check passed\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := ask(testMux(c.live, c.ready), http.MethodGet, c.path, "192.0.2.1:1234")
			if w.Code != c.code || w.Body.String() != c.answer {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, c.code, c.answer)
			}
			if w.Header().Get("Cache-Control") != "no-store" {
				t.Error("the answer may be cached")
			}
		})
	}
	if w := ask(testMux(nil, nil), http.MethodPost, "/healthz", "192.0.2.1:1234"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d", w.Code)
	}
}

// TestHangingCheckFails: the check waits for ever, the answer does not.
func TestHangingCheckFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		began := time.Now()
		w := ask(newHealthHandler("readyz", []healthCheck{{"containerd", hangs}}), http.MethodGet, "/readyz", "127.0.0.1:1")
		if want := "[-]containerd failed: context deadline exceeded\nreadyz check failed\n"; w.Code != 500 || w.Body.String() != want {
			t.Errorf("got %d %q, want %q", w.Code, w.Body, want)
		}
		if took := time.Since(began); took != healthCheckLimit { // of virtual time
			t.Errorf("the answer took %v", took)
		}
	})
}

func TestTurnedWithin(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		0: "", 30 * time.Second: "", -time.Hour: "",
		31 * time.Second: "the agent's loop has not turned for 31s, more than 30s",
	} {
		check := turnedWithin(30*time.Second, func() time.Time { return now.Add(-ago) }, func() time.Time { return now })
		err := check.Check(context.Background())
		if (err == nil) != (want == "") || (err != nil && err.Error() != want) {
			t.Errorf("%v ago: got %v, want %q", ago, err, want)
		}
	}
}

func TestMetricsAreServed(t *testing.T) {
	mux := testMux(nil, nil)
	w := ask(mux, http.MethodGet, "/metrics", "192.0.2.1:1234")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "kube_daemonset_status_number_ready{") || !strings.Contains(w.Body.String(), "picket_build_info{") {
		t.Errorf("got %d: %.200s", w.Code, w.Body)
	}
	s := testSnapshot()
	s.ManifestErrors = map[string]int{"\xff": 1, "\xfe": 1} // one series twice: an error of the scrape
	reg, _ := register(s)
	w = ask(newHealthMux(health{Metrics: reg}), http.MethodGet, "/metrics", "192.0.2.1:1234")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "kube_daemonset_status_number_ready{") {
		t.Errorf("one bad series spoils the rest: %d: %.200s", w.Code, w.Body)
	}
	if w := ask(mux, http.MethodGet, "/", "192.0.2.1:1234"); w.Code != http.StatusNotFound {
		t.Errorf("/: got %d", w.Code)
	}
}

func TestProfilesAreForThisHostOnly(t *testing.T) {
	mux := testMux(nil, nil)
	for remote, want := range map[string]int{
		"127.0.0.1:5": 200, "127.8.9.10:5": 200, "[::1]:5": 200, "[::ffff:127.0.0.1]:5": 200,
		"192.0.2.1:5": 403, "[2001:db8::1]:5": 403, "[::ffff:192.0.2.1]:5": 403, "10.0.0.1:5": 403, "": 403, "@": 403, "localhost:5": 403,
	} {
		for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine", "/debug/pprof/symbol"} {
			if w := ask(mux, http.MethodGet, path, remote); w.Code != want {
				t.Errorf("%s from %q: got %d, want %d", path, remote, w.Code, want)
			}
		}
	}
	for _, path := range []string{"/debug/pprof/profile", "/debug/pprof/trace"} {
		if w := ask(mux, http.MethodGet, path, "192.0.2.1:5"); w.Code != 403 {
			t.Errorf("%s: got %d", path, w.Code)
		}
	}
}

// Scrapers that ask and never read give their places back.
func TestScrapersThatDoNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		for i := range 200 { // more than what is written at once
			reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: fmt.Sprintf("picket_test_%d", i), Help: strings.Repeat("x", 100)}))
		}
		served := pipes{accepted: make(chan net.Conn)}
		server := newHealthServer(health{Metrics: reg}, slog.New(slog.DiscardHandler))
		go func() { _ = server.Serve(served) }()
		scrape := func() net.Conn {
			ours, theirs := net.Pipe()
			served.accepted <- theirs
			if _, err := fmt.Fprint(ours, "GET /metrics HTTP/1.1\r\nHost: host-01\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			return ours
		}
		for range scrapesInFlight {
			defer scrape().Close()
		}
		synctest.Wait()
		time.Sleep(2 * healthTimeout)
		last := scrape()
		answer, err := http.ReadResponse(bufio.NewReader(last), nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != http.StatusOK {
			t.Errorf("the next one gets %s", answer.Status)
		}
		if err := errors.Join(last.Close(), server.Close()); err != nil {
			t.Error(err)
		}
	})
}

// pipes is a listener of connections without a buffer.
type pipes struct{ accepted chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p.accepted; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p.accepted); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }
