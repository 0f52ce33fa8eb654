package agent

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/picketd/picket/agent/api"
)

const (
	eventTTL    = time.Hour // as in Kubernetes
	eventsLimit = 1000      // per host; the oldest go first
)

var resourceEvents = schema.GroupResource{Resource: "events"}

// recorder keeps core/v1 Events in the API's cache: repeated ones are counted, old ones forgotten. Safe for concurrent use.
type recorder struct {
	cache *api.Cache
	node  string
	now   func() time.Time

	mu     sync.Mutex
	recent map[string]*corev1.Event // by what is said
	total  map[string]uint64        // by reason, for metrics
	last   int64                    // what the newest name ends in: no two are equal
}

func newRecorder(cache *api.Cache, node string, now func() time.Time) *recorder {
	return &recorder{cache: cache, node: node, now: now, recent: map[string]*corev1.Event{}, total: map[string]uint64{}}
}

// record notes that something happened to an object. The same news is one event. Its name ends in the time of the first, as
// Kubernetes' events do: they are listed by name, and kubectl shows events of one second in the order in which it gets them.
func (r *recorder) record(about corev1.ObjectReference, eventType, reason, message string) {
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{about.Kind, about.Namespace, about.Name, string(about.UID), eventType, reason, message}, "\x00")))
	now, said := metav1.NewTime(r.now()), string(sum[:])

	r.mu.Lock()
	defer r.mu.Unlock()
	r.total[reason]++
	event, known := r.recent[said]
	if known {
		event = event.DeepCopy()
	} else {
		r.last = max(r.last+1, now.UnixNano())
		event = &corev1.Event{
			TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
			ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%016x", about.Name, r.last), CreationTimestamp: now},
			FirstTimestamp: now,
		}
	}
	event.InvolvedObject, event.Type, event.Reason, event.Message = about, eventType, reason, message
	event.Source = corev1.EventSource{Component: "picketd", Host: r.node}
	event.ReportingController, event.ReportingInstance = "picketd", r.node
	event.LastTimestamp = now
	event.Count++
	r.recent[said] = event
	r.cache.Set(resourceEvents, event)
	r.expire(now.Time)
}

// expire drops what is old or too much; r.mu is held.
func (r *recorder) expire(now time.Time) {
	for key, e := range r.recent {
		if now.Sub(e.LastTimestamp.Time) > eventTTL {
			r.drop(key, e)
		}
	}
	if len(r.recent) <= eventsLimit {
		return
	}
	keys := make([]string, 0, len(r.recent))
	for key := range r.recent {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return r.recent[a].LastTimestamp.Compare(r.recent[b].LastTimestamp.Time)
	})
	for _, key := range keys[:len(keys)-eventsLimit*9/10] {
		r.drop(key, r.recent[key])
	}
}

func (r *recorder) drop(key string, e *corev1.Event) {
	delete(r.recent, key)
	r.cache.Delete(resourceEvents, e.Namespace, e.Name)
}

// totals is a copy of the number of events by reason.
func (r *recorder) totals() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]uint64, len(r.total))
	for reason, n := range r.total {
		out[reason] = n
	}
	return out
}

// referenceTo names an object as events do.
func referenceTo(apiVersion, kind string, o metav1.Object) corev1.ObjectReference {
	return corev1.ObjectReference{
		APIVersion: apiVersion, Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
	}
}
