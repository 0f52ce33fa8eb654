package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// healthCheckLimit bounds one check: a probe that hangs tells nothing.
	healthCheckLimit = 2 * time.Second
	// healthTimeout bounds reading a request and, beyond what a profile takes, writing its answer: who asks and does not read must
	// not hold one of the places below for ever.
	healthTimeout = 30 * time.Second
	// scrapesInFlight bounds what many impatient scrapers can cost.
	scrapesInFlight = 4
)

// healthCheck is one line of /healthz or /readyz.
type healthCheck struct {
	Name string
	// Check is called at any time and from many goroutines, must return when ctx ends, and its error is shown to whoever asks.
	Check func(ctx context.Context) error
}

// health is what the metrics listener serves.
type health struct {
	Metrics prometheus.Gatherer
	Live    []healthCheck // /healthz: restart the agent when one fails
	Ready   []healthCheck // /readyz: this host does not do its work while one fails
}

// newHealthServer serves newHealthMux to clients that may be slow or gone.
func newHealthServer(h health, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: newHealthMux(h), ReadTimeout: healthTimeout, WriteTimeout: healthTimeout, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// newHealthMux serves /metrics, /healthz, /readyz, and /debug/pprof for this host alone.
func newHealthMux(h health) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.Metrics, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: scrapesInFlight,
	}))
	mux.Handle("GET /healthz", newHealthHandler("healthz", h.Live))
	mux.Handle("GET /readyz", newHealthHandler("readyz", h.Ready))
	for path, handler := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		mux.Handle(path, loopbackOnly(handler))
	}
	return mux
}

// newHealthHandler runs every check and lists them as Kubernetes' verbose form does: 200 when all passed, else 500.
func newHealthHandler(name string, checks []healthCheck) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body strings.Builder
		code, verdict := http.StatusOK, "passed"
		for _, c := range checks {
			if err := runCheck(r.Context(), c); err != nil {
				code, verdict = http.StatusInternalServerError, "failed"
				fmt.Fprintf(&body, "[-]%s failed: %s\n", c.Name, strings.Join(strings.Fields(err.Error()), " "))
				continue
			}
			fmt.Fprintf(&body, "[+]%s ok\n", c.Name)
		}
		fmt.Fprintf(&body, "%s check %s\n", name, verdict)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body.String())) // who asked may be gone
	})
}

func runCheck(ctx context.Context, c healthCheck) error {
	ctx, cancel := context.WithTimeout(ctx, healthCheckLimit)
	defer cancel()
	return c.Check(ctx)
}

// turnedWithin is the liveness of a loop: it fails when the loop has not come round for longer than bound. last is when it
// last did; now is the clock.
func turnedWithin(bound time.Duration, last, now func() time.Time) healthCheck {
	return healthCheck{Name: "loop", Check: func(context.Context) error {
		if ago := now().Sub(last()); ago > bound {
			return fmt.Errorf("the agent's loop has not turned for %s, more than %s", ago.Round(time.Second), bound)
		}
		return nil
	}}
}

// loopbackOnly refuses clients of other hosts: profiles show memory, and taking one costs time.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !client.Addr().IsLoopback() {
			http.Error(w, "/debug/pprof is served to this host only; reach it through ssh -L", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
