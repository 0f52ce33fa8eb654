package api_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/api/apitest"
)

// event is one line of a watch.
type event struct {
	Type   string
	Object struct {
		metav1.TypeMeta
		metav1.ObjectMeta `json:"metadata"`
		Code              int
		Reason            string
		ColumnDefinitions []metav1.TableColumnDefinition
		Rows              []metav1.TableRow
	}
}

// watching is an open watch.
type watching struct {
	t    testing.TB
	body io.ReadCloser
	in   *bufio.Reader
}

func (c *client) watch(query string, header ...string) *watching {
	c.t.Helper()
	req, err := http.NewRequest(http.MethodGet, c.url+query, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		c.t.Fatalf("GET %s: %d %s", query, resp.StatusCode, text)
	}
	return &watching{t: c.t, body: resp.Body, in: bufio.NewReader(resp.Body)}
}

// next reads the next event; its Type is "" when the watch has ended.
func (w *watching) next() event {
	w.t.Helper()
	var e event
	line, err := w.in.ReadBytes('\n')
	if errors.Is(err, io.EOF) && len(line) == 0 {
		return e
	}
	if err == nil {
		err = json.Unmarshal(line, &e)
	}
	if err != nil {
		w.t.Fatalf("%v in %q", err, line)
	}
	return e
}

func (w *watching) expect(wants ...string) {
	w.t.Helper()
	for _, want := range wants {
		e := w.next()
		if got := strings.TrimSpace(e.Type + " " + e.Object.Name); got != want {
			w.t.Fatalf("event %q (%d %s), want %q", got, e.Object.Code, e.Object.Reason, want)
		}
	}
}

func labelled(name, app string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": app}}}
}

func TestWatch(t *testing.T) {
	h := apitest.Start(t)
	c := newClient(t, h, "v", apitest.Viewers)
	path := inDefault + "/configmaps?watch=true"
	set := func(name, app string) api.Object { return h.Cache.Set(apitest.ConfigMaps, labelled(name, app)) }
	old := set("a", "web")
	all := c.watch(path)
	defer all.body.Close()
	all.expect("ADDED a")
	after := c.watch(path + "&resourceVersion=" + old.GetResourceVersion())
	defer after.body.Close()
	web := c.watch(path + "&labelSelector=app%3Dweb")
	defer web.body.Close()
	web.expect("ADDED a")
	named := c.watch(path + "&fieldSelector=metadata.name%3Db&resourceVersion=" + old.GetResourceVersion())
	defer named.body.Close()
	quiet := c.watch(path + "&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")
	defer quiet.body.Close()

	set("b", "db")
	set("a", "db") // leaves the selection
	h.Cache.Set(apitest.ConfigMaps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "x"}})
	set("b", "web") // enters it
	last := h.Cache.Delete(apitest.ConfigMaps, "default", "b")
	all.expect("ADDED b", "MODIFIED a", "MODIFIED b", "DELETED b")
	after.expect("ADDED b", "MODIFIED a", "MODIFIED b", "DELETED b")
	quiet.expect("ADDED b", "MODIFIED a", "MODIFIED b", "DELETED b")
	named.expect("ADDED b", "MODIFIED b", "DELETED b")
	gone := web.next()
	if gone.Type != "DELETED" || gone.Object.Name != "a" || gone.Object.Labels["app"] != "web" || gone.Object.ResourceVersion <= old.GetResourceVersion() {
		t.Errorf("an object that left the selection: %+v", gone)
	}
	web.expect("ADDED b")
	if e := web.next(); e.Type != "DELETED" || e.Object.ResourceVersion != last.GetResourceVersion() {
		t.Errorf("the deletion: %+v, want version %s", e, last.GetResourceVersion())
	}
}

// sendInitialEvents answers with what there is and a marked bookmark: `rollout status` and `wait` hang without it.
func TestWatchList(t *testing.T) {
	h := apitest.Start(t)
	c := newClient(t, h, "v", apitest.Viewers)
	h.Cache.Set(apitest.ConfigMaps, labelled("a", "web"))
	last := h.Cache.Set(apitest.ConfigMaps, labelled("b", "web"))
	w := c.watch(inDefault + "/configmaps?watch=true&" + initial)
	defer w.body.Close()
	w.expect("ADDED a", "ADDED b")
	mark := w.next()
	if mark.Type != "BOOKMARK" || mark.Object.Annotations[metav1.InitialEventsAnnotationKey] != "true" ||
		mark.Object.ResourceVersion != last.GetResourceVersion() || mark.Object.Kind != "ConfigMap" {
		t.Errorf("%+v", mark)
	}
	h.Cache.Set(apitest.ConfigMaps, labelled("c", "web"))
	w.expect("ADDED c")
}

// Watched as a table every event is one, the columns come once.
func TestWatchAsTable(t *testing.T) {
	h := apitest.Start(t)
	c := newClient(t, h, "v", apitest.Viewers)
	h.Cache.Set(apitest.ConfigMaps, labelled("a", "web"))
	w := c.watch(inDefault+"/configmaps?watch=true", "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	defer w.body.Close()
	first := w.next()
	if first.Object.Kind != "Table" || len(first.Object.ColumnDefinitions) != 3 || len(first.Object.Rows) != 1 || first.Object.Rows[0].Cells[0] != "a" {
		t.Errorf("%+v", first)
	}
	if row := string(first.Object.Rows[0].Object.Raw); !strings.Contains(row, `"kind":"PartialObjectMetadata"`) || !strings.Contains(row, `"name":"a"`) {
		t.Errorf("the row's object is %s", row)
	}
	h.Cache.Set(apitest.ConfigMaps, labelled("b", "web"))
	if second := w.next(); second.Type != "ADDED" || len(second.Object.ColumnDefinitions) != 0 || len(second.Object.Rows) != 1 {
		t.Errorf("%+v", second)
	}
}

// A watcher that falls too far behind is told so, as one that comes back too late is.
func TestSlowWatcherIsExpired(t *testing.T) {
	h := apitest.Start(t)
	c := newClient(t, h, "v", apitest.Viewers)
	first := h.Cache.Set(apitest.ConfigMaps, labelled("a", "web"))
	w := c.watch(inDefault + "/configmaps?watch=true")
	defer w.body.Close()
	w.expect("ADDED a")
	// The client reads nothing while more passes than the connection's buffers and the history hold.
	big := strings.Repeat("x", 256<<10)
	for i := range 600 {
		cm := labelled("a", "web")
		cm.Data = map[string]string{"v": big, "i": fmt.Sprint(i)}
		h.Cache.Set(apitest.ConfigMaps, cm)
	}
	for {
		e := w.next()
		if e.Type == "ERROR" {
			if e.Object.Kind != "Status" || e.Object.Code != http.StatusGone || e.Object.Reason != "Expired" {
				t.Errorf("%+v", e)
			}
			break
		}
		if e.Type != "MODIFIED" {
			t.Fatalf("%+v", e)
		}
	}
	w.expect("")
	if a := c.do("GET", inDefault+"/configmaps?watch=1&resourceVersion="+first.GetResourceVersion(), "", ""); a.code != http.StatusGone {
		t.Errorf("a late watcher: %d %s", a.code, a.body)
	}
}

func TestWatchTimeout(t *testing.T) {
	h := apitest.Start(t)
	c := newClient(t, h, "v", apitest.Viewers)
	w := c.watch(inDefault + "/configmaps?watch=true&timeoutSeconds=1")
	defer w.body.Close()
	w.expect("")
}

// pipes is a network in memory, so that time can be virtual.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.conns <- server
	return client, nil
}

// A watch without timeoutSeconds has no end, over HTTP/1 and HTTP/2; bookmarks come while it is idle.
func TestIdleWatchLasts(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			ca := apitest.NewAuthority(t)
			synctest.Test(t, func(t *testing.T) {
				cache := api.NewCache(apitest.Versions(1))
				server, err := api.New(api.Options{Cache: cache, Backend: &apitest.Backend{Cache: cache}, TLSConfig: ca.ServerTLS(t)})
				if err != nil {
					t.Fatal(err)
				}
				network := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
				ctx, stop := context.WithCancel(context.Background())
				done := make(chan error, 1)
				go func() { done <- server.Serve(ctx, network) }()
				clientTLS := ca.ClientTLS(t, "v", apitest.Viewers)
				transport := &http.Transport{DialContext: network.dial, TLSClientConfig: clientTLS, ForceAttemptHTTP2: protocol == "h2"}
				if protocol != "h2" {
					transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
				}
				c := &client{t: t, http: &http.Client{Transport: transport}, url: "https://127.0.0.1"}

				w := c.watch(inDefault + "/configmaps?watch=true&allowWatchBookmarks=true")
				time.Sleep(24 * time.Hour)
				other := cache.Set(apitest.Secrets, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}})
				if mark := w.next(); mark.Type != "BOOKMARK" || mark.Object.ResourceVersion != other.GetResourceVersion() {
					t.Errorf("%+v", mark)
				}
				time.Sleep(time.Hour + time.Second) // not at the very moment of a bookmark
				cache.Set(apitest.ConfigMaps, labelled("a", "web"))
				w.expect("ADDED a")

				stop() // the server's end is a clean end of the watch
				w.expect("")
				w.body.Close()
				transport.CloseIdleConnections()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
