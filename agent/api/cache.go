package api

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// Cache holds what the API shows: the newest state of every object, and the last changes for those who watch. The agent fills
// it; objects in it are shared with readers and never change. It is safe for concurrent use.
type Cache struct {
	next func() uint64

	mu sync.RWMutex
	// last is the newest resourceVersion given out; born the one at creation: what happened before is unknown.
	last, born uint64
	kinds      map[schema.GroupResource]*shelf
}

// NewCache returns an empty cache. next gives resourceVersions: strictly increasing, with the same top 16 bits for the life of the cache.
// It is called with the cache locked.
func NewCache(next func() uint64) *Cache {
	now := next()
	return &Cache{next: next, last: now, born: now, kinds: map[schema.GroupResource]*shelf{}}
}

type objectKey struct{ namespace, name string }

// shelf is one resource's objects and its last changes.
type shelf struct {
	objects map[objectKey]Object
	history history
	// changed is closed and replaced at the next change; nil while nobody waits.
	changed chan struct{}
}

func (c *Cache) shelf(gr schema.GroupResource) *shelf {
	s, ok := c.kinds[gr]
	if !ok {
		s = &shelf{objects: map[objectKey]Object{}, history: history{floor: c.born}}
		c.kinds[gr] = s
	}
	return s
}

// Set puts an object in, gives it a resourceVersion and wakes its watchers; it returns the object as it is now in the cache.
// It takes obj over: the caller must not touch it again. An object that says nothing new changes nothing.
func (c *Cache) Set(gr schema.GroupResource, obj Object) Object {
	if r := lookupGroupResource(gr); r != nil {
		obj.GetObjectKind().SetGroupVersionKind(r.GroupVersionKind())
	}
	key := objectKey{obj.GetNamespace(), obj.GetName()}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.shelf(gr)
	old, exists := s.objects[key]
	if exists {
		if old == obj {
			return old
		}
		obj.SetResourceVersion(old.GetResourceVersion())
		if apiequality.Semantic.DeepEqual(old, obj) {
			return old
		}
	}
	c.last = c.next()
	obj.SetResourceVersion(formatVersion(c.last))
	s.objects[key] = obj
	if exists {
		s.record(change{version: c.last, kind: watch.Modified, object: obj, previous: old})
	} else {
		s.record(change{version: c.last, kind: watch.Added, object: obj})
	}
	return obj
}

// Delete takes an object out. It returns its last state, with the resourceVersion of the deletion; nil when there was none.
func (c *Cache) Delete(gr schema.GroupResource, namespace, name string) Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.shelf(gr)
	key := objectKey{namespace, name}
	old, exists := s.objects[key]
	if !exists {
		return nil
	}
	c.last = c.next()
	delete(s.objects, key)
	final := old.DeepCopyObject().(Object)
	final.SetResourceVersion(formatVersion(c.last))
	s.record(change{version: c.last, kind: watch.Deleted, object: final, previous: old})
	return final
}

// Get finds one object. It must not be changed.
func (c *Cache) Get(gr schema.GroupResource, namespace, name string) (Object, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s, ok := c.kinds[gr]
	if !ok {
		return nil, false
	}
	obj, ok := s.objects[objectKey{namespace, name}]
	return obj, ok
}

// List returns the selected objects of a namespace ("" is all), sorted by namespace and name. Nil selectors select everything.
// The objects must not be changed.
func (c *Cache) List(gr schema.GroupResource, namespace string, label labels.Selector, field fields.Selector) []Object {
	sel := selection{resource: lookupGroupResource(gr), namespace: namespace, labels: label, fields: field}
	if sel.resource == nil {
		return nil
	}
	objects, _ := c.snapshot(sel)
	return objects
}

// snapshot lists the selected objects and the resourceVersion they are complete at.
func (c *Cache) snapshot(sel selection) ([]Object, uint64) {
	c.mu.RLock()
	var objects []Object
	if s, ok := c.kinds[sel.resource.GroupResource()]; ok {
		for _, obj := range s.objects {
			if sel.matches(obj) {
				objects = append(objects, obj)
			}
		}
	}
	version := c.last
	c.mu.RUnlock()
	sortObjects(objects)
	return objects, version
}

// snapshotAt lists the objects as they were at a resourceVersion, by undoing what has happened since. It fails as changesSince does.
func (c *Cache) snapshotAt(sel selection, version uint64) ([]Object, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	changes, err := c.since(sel.resource.GroupResource(), version)
	if err != nil {
		return nil, err
	}
	state := map[objectKey]Object{}
	if s, ok := c.kinds[sel.resource.GroupResource()]; ok {
		for key, obj := range s.objects {
			state[key] = obj
		}
	}
	for _, ch := range slices.Backward(changes) {
		key := objectKey{ch.object.GetNamespace(), ch.object.GetName()}
		if ch.previous == nil {
			delete(state, key)
		} else {
			state[key] = ch.previous
		}
	}
	var objects []Object
	for _, obj := range state {
		if sel.matches(obj) {
			objects = append(objects, obj)
		}
	}
	sortObjects(objects)
	return objects, nil
}

func sortObjects(objects []Object) {
	slices.SortFunc(objects, func(a, b Object) int {
		if n := strings.Compare(a.GetNamespace(), b.GetNamespace()); n != 0 {
			return n
		}
		return strings.Compare(a.GetName(), b.GetName())
	})
}

// version is the newest resourceVersion.
func (c *Cache) version() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.last
}

// changesSince returns what happened to a resource after a resourceVersion, the version that brings the reader up to, and a
// channel that is closed when there is more. A reader that is so far behind that changes were dropped gets 410 Expired, and so
// does one that brings another agent's resourceVersion.
func (c *Cache) changesSince(gr schema.GroupResource, version uint64) ([]change, uint64, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changes, err := c.since(gr, version)
	if err != nil {
		return nil, 0, nil, err
	}
	s := c.shelf(gr)
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return slices.Clone(changes), max(version, c.last), s.changed, nil
}

// since needs the lock. What it returns is valid only under it.
func (c *Cache) since(gr schema.GroupResource, version uint64) ([]change, error) {
	if err := c.checkVersion(version); err != nil {
		return nil, err
	}
	if version > c.last { // of an earlier store that happened to have the same prefix: waiting for it might take for ever
		return nil, errForeignVersion(version)
	}
	floor := c.born
	s, ok := c.kinds[gr]
	if ok {
		floor = s.history.floor
	}
	if version < floor {
		return nil, errTooOld(version, floor)
	}
	if !ok {
		return nil, nil
	}
	return s.history.after(version), nil
}

// checkVersion refuses versions this cache cannot have given out: the prefix is that of another agent or an earlier store.
func (c *Cache) checkVersion(version uint64) error {
	if version>>48 != c.born>>48 {
		return errForeignVersion(version)
	}
	return nil
}

func formatVersion(v uint64) string { return strconv.FormatUint(v, 10) }
