package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/picketd/picket/scripts/lab"
)

// restartAfter is the RestartSec of systemd/picketd.service.
const restartAfter = 2 * time.Second

// serve is the fleet: it runs the hosts until it is told to end. Then it removes everything that they made.
func serve(ctx context.Context, p place, n int) (err error) {
	l, err := lab.New(p.dir, n, lab.Options{Binaries: p.binaries(), Log: os.Stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.Start(ctx); err != nil {
		return err
	}
	if err := l.Meet(ctx); err != nil {
		return err
	}
	listener, err := net.Listen("unix", p.control())
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Handler: mux}
	var wg sync.WaitGroup
	for _, h := range l.Hosts {
		k := &keeper{host: h, orders: make(chan order)}
		mux.Handle("POST /{verb}/"+h.Name, k)
		wg.Go(func() { k.keep(ctx) })
	}
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, fmt.Sprintf("there is no host for %s: %s to %s", r.URL.Path, l.Hosts[0].Name, l.Hosts[n-1].Name), http.StatusNotFound)
	})
	go func() { _ = server.Serve(listener) }() // ends with Close
	wg.Wait()
	return server.Close()
}

// keeper is systemd and the power switch of one host.
type keeper struct {
	host   *lab.Host
	orders chan order
}

// order is what a user wants with a host.
type order struct {
	verb string
	done chan<- error
}

// keep starts an agent again that has ended, as systemd would, until ctx ends. One that has left the fleet ends with 0 and stays away.
func (k *keeper) keep(ctx context.Context) {
	ended, again := k.host.Ended(), (<-chan time.Time)(nil)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			ended = nil
			if code := k.host.ExitCode(); code == 0 {
				log.Printf("%s: picketd has left", k.host.Name)
			} else {
				log.Printf("%s: picketd ended with %d; it is started again", k.host.Name, code)
				again = time.After(restartAfter)
			}
		case <-again:
			again = nil
			if err := k.host.Start(ctx); err != nil {
				log.Printf("%s: %v", k.host.Name, err)
			}
			ended = k.host.Ended()
		case o := <-k.orders:
			ended, again = k.obey(ctx, o, ended, again)
		}
	}
}

func (k *keeper) obey(ctx context.Context, o order, ended <-chan struct{}, again <-chan time.Time) (<-chan struct{}, <-chan time.Time) {
	switch o.verb {
	case "kill":
		o.done <- k.host.Kill()
	case "crash":
		ended, again = nil, nil
		o.done <- k.host.Crash()
	case "boot":
		again = nil
		o.done <- k.host.Start(ctx)
		ended = k.host.Ended()
	default:
		o.done <- fmt.Errorf("%q is none of kill, crash and boot", o.verb)
	}
	return ended, again
}

// ServeHTTP takes an order and answers when it was obeyed.
func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	done := make(chan error, 1)
	select {
	case k.orders <- order{r.PathValue("verb"), done}:
	case <-r.Context().Done():
		return
	}
	if err := <-done; err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	said := map[string]string{
		"kill":  "The agent of %s is killed; its containers run on, and it is back in a few seconds.\n",
		"crash": "%s has no power until: go run ./scripts/run boot %[1]s\n",
		"boot":  "%s is ready.\n",
	}
	_, _ = fmt.Fprintf(w, said[r.PathValue("verb")], k.host.Name) // who asked may be gone
}
