package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// bookmarkEvery is how often an idle watch that allows it is told the newest resourceVersion.
	bookmarkEvery = time.Minute
	// slowClient is how long one write to a client may take before the connection is given up.
	slowClient = 30 * time.Second
)

// watch streams changes until the client goes, timeoutSeconds have passed or the server stops. Without timeoutSeconds it has no
// end: kubectl takes the end of a watch for the end of its work.
func (s *Server) watch(w http.ResponseWriter, c *call) error {
	opts, err := listOptions(c.URL.Query())
	if err != nil {
		return err
	}
	sel, err := newSelection(c.resource, c.namespace, opts.LabelSelector, opts.FieldSelector)
	if err != nil {
		return err
	}
	st := &stream{w: w, call: c, sel: sel, bookmarks: opts.AllowWatchBookmarks}
	from, initial, err := s.watchStart(sel, opts)
	if err != nil {
		return err
	}
	ctx := c.Context()
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(min(*opts.TimeoutSeconds, int64(maxTimeout/time.Second)))*time.Second)
		defer cancel()
	}
	warn(w, s.standstill(sel))
	st.open()
	for _, obj := range initial {
		st.send(watch.Added, obj)
	}
	if opts.SendInitialEvents != nil && *opts.SendInitialEvents && opts.AllowWatchBookmarks {
		st.bookmark(from, map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	st.flush()
	st.follow(ctx, s.cache, from)
	return nil
}

// maxTimeout bounds timeoutSeconds against overflow.
const maxTimeout = 24 * time.Hour

// watchStart finds where a watch begins: after a resourceVersion, or with everything there is. A version that this agent did not
// give out, or of which it has forgotten what followed, is refused with 410: the client lists again.
func (s *Server) watchStart(sel selection, opts metav1.ListOptions) (from uint64, initial []Object, err error) {
	wanted, err := parseVersion(opts.ResourceVersion)
	if err != nil {
		return 0, nil, err
	}
	if wanted != 0 {
		if err := s.cache.checkVersion(wanted); err != nil {
			return 0, nil, err
		}
	}
	all := wanted == 0
	if opts.SendInitialEvents != nil {
		all = *opts.SendInitialEvents
	}
	if all {
		if current := s.cache.version(); wanted > current {
			return 0, nil, errTooNew(wanted, current)
		}
		initial, from = s.cache.snapshot(sel)
		return from, initial, nil
	}
	if wanted == 0 {
		return s.cache.version(), nil, nil
	}
	_, _, _, err = s.cache.changesSince(sel.resource.GroupResource(), wanted)
	return wanted, nil, err
}

// stream is one watch's answer.
type stream struct {
	w         http.ResponseWriter
	call      *call
	sel       selection
	bookmarks bool
	columns   bool // the column definitions of a Table have been sent
	out       bytes.Buffer
	err       error
}

func (st *stream) open() {
	st.w.Header().Set("Content-Type", mediaJSON)
	st.w.Header().Set("Cache-Control", "no-cache, private")
	st.w.WriteHeader(http.StatusOK)
}

// follow sends what happens after a version until something ends the watch.
func (st *stream) follow(ctx context.Context, cache *Cache, at uint64) {
	ticker := time.NewTicker(bookmarkEvery)
	defer ticker.Stop()
	marked, due := at, false
	for st.err == nil {
		changes, now, more, err := cache.changesSince(st.sel.resource.GroupResource(), at)
		if err != nil {
			status := statusOf(err)
			st.event(watch.Error, &status)
			st.flush()
			return
		}
		for _, ch := range changes {
			st.change(ch)
		}
		// Everything up to now has been sent: this is the moment to say so.
		at = now
		if due && at != marked {
			st.bookmark(at, nil)
			marked = at
		}
		due = false
		st.flush()
		select {
		case <-more:
		case <-ticker.C:
			due = st.bookmarks
		case <-ctx.Done():
			return
		}
	}
}

// change sends one change as it looks through the selectors: an object that stops matching is gone for this client.
func (st *stream) change(ch change) {
	before := st.sel.matches(ch.previous)
	after := ch.kind != watch.Deleted && st.sel.matches(ch.object)
	switch {
	case after && before:
		st.send(watch.Modified, ch.object)
	case after:
		st.send(watch.Added, ch.object)
	case before && ch.kind == watch.Deleted:
		st.send(watch.Deleted, ch.object)
	case before:
		last := ch.previous.DeepCopyObject().(Object)
		last.SetResourceVersion(ch.object.GetResourceVersion())
		st.send(watch.Deleted, last)
	}
}

func (st *stream) send(kind watch.EventType, obj Object) {
	st.event(kind, st.call.form.one(st.call, obj, !st.columns))
	st.columns = true
}

// bookmark tells the client how far it has come.
func (st *stream) bookmark(version uint64, annotations map[string]string) {
	obj, err := codecs.newObject(st.sel.resource)
	if err != nil {
		return
	}
	obj.GetObjectKind().SetGroupVersionKind(st.sel.resource.GroupVersionKind())
	obj.SetResourceVersion(formatVersion(version))
	obj.SetAnnotations(annotations)
	st.send(watch.Bookmark, obj)
}

func (st *stream) event(kind watch.EventType, obj runtime.Object) {
	if st.err != nil {
		return
	}
	st.err = json.NewEncoder(&st.out).Encode(struct {
		Type   watch.EventType `json:"type"`
		Object runtime.Object  `json:"object"`
	}{kind, obj})
	if st.out.Len() > maxPending {
		st.flush()
	}
}

// maxPending is how much a watch collects before it sends.
const maxPending = 32 << 10

// flush sends what was collected. A client that does not take it in time is given up.
func (st *stream) flush() {
	if st.err != nil {
		return
	}
	st.err = sendNow(st.w, st.out.Bytes())
	st.out.Reset()
	if st.out.Cap() > 4*maxPending {
		st.out = bytes.Buffer{}
	}
}

// sendNow writes and flushes within slowClient. The deadline is taken away again: HTTP/2 resets a stream when it passes, idle or not.
func sendNow(w http.ResponseWriter, p []byte) error {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(slowClient)) // not supported only by the recorders of tests
	if len(p) > 0 {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	if err := rc.Flush(); err != nil {
		return err
	}
	_ = rc.SetWriteDeadline(time.Time{})
	return nil
}
