package cluster

import (
	"strings"
	"testing"
)

// A host forgets what is void, for good, and takes it from nobody, while others may still have it.
func TestForget(t *testing.T) {
	here, there := sealedStore(t, newPlainKeys("host-01", true, "")), sealedStore(t, newPlainKeys("host-02", true, ""))
	put(t, here, content("web", "1"), content("note/1", "x"), content("note/2", "y"))
	for _, o := range here.All() {
		take(there, o)
	}
	void := false
	here.ForgetWhen(func(o Object) bool { return void && strings.HasPrefix(o.Key, "note/") })
	if err := here.Forget(); err != nil || len(here.All()) != 3 {
		t.Fatalf("forgets what is not void: %v, %d left", err, len(here.All()))
	}
	void = true
	if err := here.Forget(); err != nil || len(here.All()) != 1 {
		t.Fatalf("%v, %d left", err, len(here.All()))
	}
	note, _ := there.Get("note/1")
	if changed, refused := take(here, note); changed != 0 || refused != 0 {
		t.Errorf("it comes back from another host: changed %d, refused %d", changed, refused)
	}
	if _, offered := here.offered("note/1"); offered || here.sketch.count != 1 {
		t.Errorf("it is offered, or compared: %d elements", here.sketch.count)
	}
	again, err := OpenStore(here.db, "host-01", here.now)
	if err != nil || len(again.All()) != 1 || len(again.Damaged()) > 0 {
		t.Errorf("after a restart: %v, %d left, damaged %v", err, len(again.All()), again.Damaged())
	}
}
