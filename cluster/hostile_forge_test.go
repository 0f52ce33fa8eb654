package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A plain host relays what is true and can change nothing else, whatever it signs.
func TestHostilePlainHostForgesNothing(t *testing.T) {
	withRogue(t, 20, func(t *testing.T, f *agents, evil *rogue) {
		honest := f.list[1]
		auth := signs(f, evil.identity().Certificate)
		web, _ := honest.store.Get("DaemonSet/default/web")
		running, _ := f.list[2].statuses.Get("host-01", "default/web")
		altered := func(f func(*Object)) record {
			o := web
			f(&o)
			return objectRecord(o)
		}
		own := func(o Object) record { return objectRecord(forge(t, auth, o)) }
		said := func(s Status) record { return statusRecord(forgeStatus(t, auth, s)) }
		forged := map[string]record{
			"an object of its own":        own(Object{Key: "DaemonSet/default/evil", Version: Version{Generation: 1}, Body: []byte("x")}),
			"a later version of its own":  own(Object{Key: web.Key, Version: Version{Generation: 9}, Body: []byte("x")}),
			"a tombstone of its own":      own(Object{Key: web.Key, Version: Version{Generation: 9}, Deleted: true}),
			"a generation far ahead":      own(Object{Key: web.Key, Version: Version{Generation: 1<<32 + 2}, Body: []byte("x")}),
			"another host's":              own(Object{Key: "Host//host-00", Version: Version{Generation: 9}, Body: []byte("x")}),
			"a door's, another body":      altered(func(o *Object) { o.Body, o.Version.Generation = []byte("x"), 9 }),
			"a door's, a later one":       altered(func(o *Object) { o.Version.Generation++ }),
			"a door's, far ahead":         altered(func(o *Object) { o.Version.Generation = 1<<32 + 2 }),
			"a door's, deleted":           altered(func(o *Object) { o.Deleted, o.Body, o.Version = true, nil, Version{Generation: 9} }),
			"a door's, under another key": altered(func(o *Object) { o.Key = "DaemonSet/default/other" }),
			"in a door's name": func() record {
				o := forge(t, auth, Object{Key: web.Key, Version: Version{Generation: 9}, Body: []byte("x")})
				o.Origin = web.Origin
				return objectRecord(o)
			}(),
			"with a door's certificate": func() record {
				o := forge(t, auth, Object{Key: web.Key, Version: Version{Generation: 9}, Body: []byte("x")})
				o.Origin, o.Credential = web.Origin, web.Credential
				return objectRecord(o)
			}(),
			"a status of another host": said(Status{Node: "host-01", Unit: "default/web", Sequence: running.Sequence + 9, Body: []byte("x")}),
			"a status of nobody":       said(Status{Node: "host-99", Unit: "default/web", Sequence: 1, Body: []byte("x")}),
			"another host's, altered": func() record {
				s := running
				s.Sequence, s.Body = s.Sequence+1, []byte("x")
				return statusRecord(s)
			}(),
		}
		c, before := evil.own(), f.snapshot()
		defer c.CloseIdleConnections()
		for name, r := range forged {
			was := honest.r.Stats()
			if code, answer := post(c, honest, pathPush, pushOf([]record{r})); code != 200 {
				t.Errorf("%s: %d %s", name, code, answer)
			}
			if is := honest.r.Stats(); is.Refused != was.Refused+1 || is.Taken != was.Taken || honest.r.digest() != before[honest.name] {
				t.Errorf("%s: refused %d, taken %d", name, is.Refused-was.Refused, is.Taken-was.Taken)
			}
		}
		f.unchanged(before)

		// What is true it may carry.
		stored, err := f.list[0].store.PutAll([]Write{{Key: "ConfigMap/default/true", Body: []byte("x"), Hash: hashOf("x")}})
		if err != nil {
			t.Fatal(err)
		}
		st, _, err := f.list[0].statuses.Say("default/true", []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		mine := forgeStatus(t, auth, Status{Node: "evil", Unit: "default/web", Sequence: 1, Body: []byte("x")})
		was := honest.r.Stats()
		post(c, honest, pathPush, pushOf([]record{objectRecord(stored[0]), statusRecord(st), statusRecord(mine)}))
		if is := honest.r.Stats(); is.Taken != was.Taken+3 {
			t.Errorf("of what is true %d were taken", is.Taken-was.Taken)
		}
	})
}

// Nobody writes what another host says of itself, not even a door.
func TestHostileDoorDoesNotSpeakForOthers(t *testing.T) {
	permit := func(by Signer, key string) error { // as the agent's policy
		if owner, ok := strings.CutPrefix(key, "Host//"); ok && owner != by.Node || !ok && !by.Door {
			return &NotPermittedError{Reason: "no"}
		}
		return nil
	}
	withRoguePermitted(t, 21, permit, func(t *testing.T, f *agents, evil *rogue) {
		door := signs(f, f.list[0].identity().Certificate)
		plain := signs(f, evil.identity().Certificate)
		c, before, honest := evil.own(), f.snapshot(), f.list[1]
		defer c.CloseIdleConnections()
		post(c, honest, pathPush, pushOf([]record{
			objectRecord(forge(t, door, Object{Key: "Host//host-01", Version: Version{Generation: 3}, Body: []byte("x")})),
			objectRecord(forge(t, door, Object{Key: "Host//evil", Version: Version{Generation: 3}, Body: []byte("x")})),
			objectRecord(forge(t, plain, Object{Key: "Host//host-00", Version: Version{Generation: 3}, Body: []byte("x")})),
			objectRecord(inTheNameOf(t, "host-01", door, Object{Key: "ConfigMap/default/theirs", Version: Version{Generation: 3}, Birth: 3})),
		}))
		if n := honest.r.Stats().Refused; n != 4 {
			t.Errorf("%d were refused", n)
		}
		f.unchanged(before)
		post(c, honest, pathPush, pushOf([]record{
			objectRecord(forge(t, door, Object{Key: "Host//host-00", Version: Version{Generation: 3}, Body: []byte("x")})),
			objectRecord(forge(t, plain, Object{Key: "Host//evil", Version: Version{Generation: 3}, Body: []byte("x")})),
		}))
		f.within(3*time.Second, "what hosts say of themselves is everywhere", func() bool {
			return f.everyone(func(a *agent) bool { return a.has("Host//host-00", "x") && a.has("Host//evil", "x") })
		})
	})
}

// inTheNameOf signs an object of another origin.
func inTheNameOf(t *testing.T, origin string, auth Authenticator, o Object) Object {
	t.Helper()
	var err error
	o.Origin = origin
	o.Signature, err = auth.Sign(func(_ Signer, credential []byte) []byte {
		o.Credential = credential
		return o.signedPart("fleet")
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Whatever a host says, and to whom, the others remember a bounded part of it, all the same, and then are quiet.
func TestHostileStatusesAreBoundedAndAgreedOn(t *testing.T) {
	withRogue(t, 22, func(t *testing.T, f *agents, evil *rogue) {
		auth := signs(f, evil.identity().Certificate)
		c := evil.own()
		defer c.CloseIdleConnections()
		tell := func(to *agent, list []record) {
			t.Helper()
			for len(list) > 0 {
				n := min(len(list), 1000)
				if code, answer := post(c, to, pathPush, pushOf(list[:n])); code != 200 {
					t.Fatalf("%d %s", code, answer)
				}
				list = list[n:]
			}
		}
		// To each of two other units than to the other one, some of which it takes back, and another word on the same unit with the
		// same sequence.
		f.net.Partition([]string{"host-00"}, []string{"host-01", "host-02"})
		for i, to := range f.list[:2] {
			var list []record
			for k := range maxUnits/2 + 500 {
				list = append(list, statusRecord(forgeStatus(t, auth, Status{Node: "evil", Unit: fmt.Sprintf("%d/%d", i, k), Sequence: uint64(10 + 2*k + i), Body: []byte("x")})))
			}
			for k := range maxSilent/2 + 100 {
				list = append(list, statusRecord(forgeStatus(t, auth, Status{Node: "evil", Unit: fmt.Sprintf("%d-silent/%d", i, k), Sequence: uint64(10 + 2*k + i)})))
			}
			list = append(list, statusRecord(forgeStatus(t, auth, Status{Node: "evil", Unit: "both", Sequence: 1 << 40, Body: fmt.Append(nil, i)})))
			tell(to, list)
		}
		f.net.Heal()
		f.within(time.Minute, "all agree", func() bool { return alike(f.list) })
		for _, a := range f.list {
			if n := len(a.statuses.Of("evil")); n > maxUnits+maxSilent {
				t.Errorf("%s remembers %d statuses", a.name, n)
			}
			if st, _ := a.statuses.Get("evil", "both"); string(st.Body) != "0" && string(st.Body) != "1" {
				t.Errorf("%s believes %q", a.name, st.Body)
			}
		}
		sum := func() (bytes uint64) {
			for _, a := range f.list {
				bytes += a.r.Stats().BytesSent + a.r.Stats().BytesTaken
			}
			return bytes
		}
		time.Sleep(time.Minute)
		before := sum()
		time.Sleep(10 * time.Minute)
		if rate := float64(sum()-before) / 600 / 3; rate > 50 {
			t.Errorf("afterwards each exchanges %.0f bytes a second", rate)
		}
		f.works()
	})
}

// Wrong signatures cost as much as right ones: of one host only so many are looked at.
func TestHostileSignaturesAreNotLookedAtForEver(t *testing.T) {
	withRogue(t, 23, func(t *testing.T, f *agents, evil *rogue) {
		honest, c := f.list[1], evil.own()
		defer c.CloseIdleConnections()
		before := honest.verified.Load()
		o := forge(t, signs(f, evil.identity().Certificate), Object{Key: "k", Version: Version{Generation: 1}})
		for i := range 10 {
			var list []record
			for k := range 500 {
				o.Key = fmt.Sprintf("ConfigMap/default/%d-%d", i, k)
				list = append(list, objectRecord(o))
			}
			was := honest.r.Stats().Refused
			post(c, honest, pathPush, pushOf(list))
			if n := honest.r.Stats().Refused - was; n != 500 {
				t.Errorf("%d of 500 were refused", n)
			}
		}
		if looked := honest.verified.Load() - before; looked > maxPatience+100 {
			t.Errorf("%d of 5,000 wrong signatures were looked at", looked)
		}
		time.Sleep(time.Minute)
		if f.works(); honest.r.patienceWith("evil", 0) != maxPatience {
			t.Error("patience does not come back")
		}
	})
}
