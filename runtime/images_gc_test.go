package runtime

import (
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestRoomToFree(t *testing.T) {
	for name, c := range map[string]struct{ capacity, available, wanted, want int64 }{
		"room enough":                       {1000, 500, 0, 0},
		"below the high mark":               {1000, 160, 0, 0}, // the kubelet rounds the used part up
		"at the high mark":                  {1000, 150, 0, 50},
		"full":                              {1000, 0, 0, 200},
		"a pull was refused":                {1000, 300, 450, 150},
		"a pull was refused, there is room": {1000, 300, 250, 0},
		"above the mark, and a small pull":  {1000, 100, 150, 100},
		"above the mark, and a large pull":  {1000, 100, 400, 300},
		"a file system without a size":      {0, 0, 0, 0},
	} {
		if got := (diskSpace{c.capacity, c.available}).toFree(c.wanted); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestUnusedImages(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	ago := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	d := func(name string) digest.Digest { return digest.FromString(name) }
	image := func(name string, change ...func(*storedImage)) storedImage {
		i := storedImage{digest: d(name), names: []string{"docker.io/library/" + name + ":1"}, pulled: ago(60), lastUsed: ago(30)}
		for _, c := range change {
			c(&i)
		}
		return i
	}
	images := []storedImage{
		image("newest", func(i *storedImage) { i.lastUsed = ago(1) }),
		image("running", func(i *storedImage) { i.inUse = true }),
		image("imported", func(i *storedImage) { i.imported = true }),
		image("pinned"),
		image("by-digest"),
		image("two-names", func(i *storedImage) { i.names = append(i.names, "quay.io/team/app:v2") }),
		image("just-pulled", func(i *storedImage) { i.pulled, i.lastUsed = now.Add(-imageGCMinAge+time.Second), ago(90) }),
		image("old-enough", func(i *storedImage) { i.pulled, i.lastUsed = now.Add(-imageGCMinAge), ago(5) }),
		image("oldest", func(i *storedImage) { i.lastUsed = ago(40) }),
		image("oldest-too", func(i *storedImage) { i.lastUsed, i.pulled = ago(40), ago(50) }),
	}
	pinned := parseImageNames([]string{"pinned:1", "other@" + d("by-digest").String(), "quay.io/team/app:v2", "Not A Name"})
	var got []string
	for _, i := range unusedImages(images, pinned, now) {
		got = append(got, i.names[0])
	}
	want := []string{"docker.io/library/oldest:1", "docker.io/library/oldest-too:1", "docker.io/library/old-enough:1", "docker.io/library/newest:1"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// What is seen with a container, or asked for, is used last then; the rest when it was pulled. What is gone is forgotten.
func TestImageUses(t *testing.T) {
	var u imageUses
	u.now("asked")
	u.now("gone")
	now := time.Now().Add(time.Hour)
	list := u.note(map[digest.Digest]*storedImage{
		"asked": {digest: "asked"}, "used": {digest: "used", inUse: true}, "pulled": {digest: "pulled", pulled: now.Add(-24 * time.Hour)},
	}, now)
	for _, i := range list {
		switch want := map[digest.Digest]time.Time{"used": now, "pulled": now.Add(-24 * time.Hour)}[i.digest]; {
		case i.digest == "asked" && time.Since(i.lastUsed) > time.Minute, i.digest != "asked" && !i.lastUsed.Equal(want):
			t.Errorf("%s: %s", i.digest, i.lastUsed)
		}
	}
	if len(list) != 3 || !u.at("gone").IsZero() || u.at("used").IsZero() {
		t.Errorf("%v, %v", list, u.last)
	}
	// It ended since: what was seen then still counts.
	if again := u.note(map[digest.Digest]*storedImage{"used": {digest: "used"}}, now.Add(time.Hour)); !again[0].lastUsed.Equal(now) {
		t.Errorf("%+v", again)
	}
}

func TestForgottenImages(t *testing.T) {
	var c imageCache
	for ref, digest := range map[string]string{"a:1@sha256:1": "sha256:1", "b:1@sha256:1": "sha256:1", "a:2@sha256:2": "sha256:2"} {
		c.put(&unpackedImage{ref: ref, digest: digest})
	}
	c.forgetDigest("sha256:1")
	if len(c.byRef) != 1 || c.get("a:2@sha256:2") == nil {
		t.Errorf("%v", c.byRef)
	}
}
