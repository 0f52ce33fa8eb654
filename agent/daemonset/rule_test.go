package daemonset

import (
	"reflect"
	"strings"
	"testing"
)

// asks is host b of a, b and c, whose pod is available and old; the others have acknowledged, a is done and c's turn is after.
type asks struct {
	turn   Turn
	own    Own
	memory Memory
	said   Said
}

func newAsks(change ...func(*asks)) asks {
	view := Common{Generation: 2, Exclusions: map[string]Exclusion{}, Roster: map[string]Entry{"a": {Number: 1}, "b": {Number: 1}, "c": {Number: 1}}}
	digest := view.Digest()
	word := Peer{Told: true, View: digest, Version: view.Version(), Placed: true, Available: true}
	done, old := word, word
	done.Done, old.Old = true, true
	a := asks{
		turn: Turn{
			Self: "b", View: view, Digest: digest, Before: forwards, Budget: func(int) int { return 1 },
			Peers: map[string]Peer{"a": done, "c": old},
		},
		own:  Own{Placed: true, Wants: true, Old: true},
		said: Said{Entry: 1, Version: view.Version(), Views: []Digest{digest}},
	}
	for _, c := range change {
		c(&a)
	}
	return a
}

func (a *asks) excludes(node string) { a.turn.View.Exclusions[node] = Exclusion{Entry: 1} }

func (a asks) rule() Ruling { return a.turn.Rule(a.own, a.memory, a.said) }

// peer changes what host b knows of another one.
func peer(node string, change func(*Peer)) func(*asks) {
	return func(a *asks) {
		p := a.turn.Peers[node]
		change(&p)
		a.turn.Peers[node] = p
	}
}

// older is a version, and a view, that came before; newer is one that host b has not heard of.
var older, newer = Version{Generation: 1}, Version{Generation: 3}

func TestRuleStarts(t *testing.T) {
	if r := newAsks().rule(); !r.Start || !r.Memory.Updating || r.Raise || len(r.Blockers) > 0 {
		t.Errorf("%+v", r)
	}
	for name, c := range map[string]struct {
		change func(*asks)
		starts bool
	}{
		"its pod is not old":                               {func(a *asks) { a.own.Wants = false }, false},
		"it is stuck":                                      {func(a *asks) { a.own.Stuck = true }, false},
		"it updates already":                               {func(a *asks) { a.memory.Updating = true }, false},
		"it is not placed":                                 {func(a *asks) { a.own.Placed = false }, false},
		"it may have forgotten what it said":               {func(a *asks) { a.own.Unsure = true }, false},
		"it cannot make the next pod":                      {func(a *asks) { a.own.Aside = true }, false},
		"it is not in the roster":                          {func(a *asks) { delete(a.turn.View.Roster, "b") }, false},
		"it is out":                                        {func(a *asks) { a.turn.View.Roster["b"] = Entry{1, true} }, false},
		"a stands aside":                                   {peer("a", func(p *Peer) { p.Done, p.Aside = false, true }), true},
		"a stands aside, and its pod is not available":     {peer("a", func(p *Peer) { p.Done, p.Aside, p.Available = false, true, false }), false},
		"a stands aside, and updates":                      {peer("a", func(p *Peer) { p.Done, p.Aside, p.Updating = false, true, true }), false},
		"a is not placed, and is not heard":                {peer("a", func(p *Peer) { p.Done, p.Placed, p.Available, p.Failed = false, false, false, true }), true},
		"a is not placed, and updates":                     {peer("a", func(p *Peer) { p.Done, p.Placed, p.Updating = false, false, true }), false},
		"a was not placed under another view":              {peer("a", func(p *Peer) { p.Placed, p.View = false, Digest{1} }), false},
		"c was stuck under another view":                   {peer("c", func(p *Peer) { p.Stuck, p.View = true, Digest{1} }), false},
		"a is out":                                         {func(a *asks) { a.turn.View.Roster["a"] = Entry{1, true}; delete(a.turn.Peers, "a") }, true},
		"a is excluded, and is not heard":                  {func(a *asks) { a.excludes("a"); peer("a", func(p *Peer) { p.Failed, p.Version = true, older })(a) }, true},
		"a is excluded, and is heard":                      {func(a *asks) { a.excludes("a") }, false},
		"a is excluded, and took it up before it was lost": {func(a *asks) { a.excludes("a"); peer("a", func(p *Peer) { p.Failed = true })(a) }, false},
		"a was excluded before it came back": {func(a *asks) {
			a.turn.View.Roster["a"] = Entry{Number: 2}
			a.excludes("a")
		}, true},
		"a is excluded, is heard, and out": {func(a *asks) { a.excludes("a"); a.turn.View.Roster["a"] = Entry{1, true} }, true},
	} {
		if r := newAsks(c.change).rule(); r.Start != c.starts || r.Memory.Updating != (c.starts || name == "it updates already") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestRuleHalts: a stuck host stops all, also where more may be down, but only while all agree on what it is stuck with.
func TestRuleHalts(t *testing.T) {
	stuck := func(a *asks) {
		a.turn.Budget = func(int) int { return 3 }
		peer("c", func(p *Peer) { p.Stuck, p.Updating = true, true })(a)
	}
	if r := newAsks(stuck).rule(); r.Start || r.Halted != "c" {
		t.Errorf("%+v", r)
	}
	before := func(a *asks) {
		a.said.Views = append(a.said.Views, Digest{1})
		peer("c", func(p *Peer) { p.View = Digest{1} })(a)
	}
	if r := newAsks(stuck, before).rule(); !r.Start || r.Halted != "" {
		t.Errorf("stuck under another view: %+v", r)
	}
}

// TestRuleLost: who may be gone on without, as host b sees it.
func TestRuleLost(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Peer)
		want   string
	}{
		"it never spoke":                        {func(p *Peer) { *p = Peer{Failed: true} }, "c"},
		"it never acknowledged this version":    {func(p *Peer) { p.Failed, p.Version = true, older }, "c"},
		"it is heard":                           {func(p *Peer) { p.Version = older }, ""},
		"it is late":                            {func(p *Peer) { p.Version, p.Quiet = older, true }, ""},
		"it acknowledged this version":          {func(p *Peer) { p.Failed = true }, ""},
		"it acknowledged a later one":           {func(p *Peer) { p.Failed, p.Version = true, newer }, ""},
		"it was in its turn":                    {func(p *Peer) { p.Failed, p.Version, p.Updating = true, older, true }, ""},
		"it acknowledged another of generation": {func(p *Peer) { p.Failed, p.Version.Tag = true, [4]byte{9} }, "c"},
	} {
		if got := strings.Join(newAsks(peer("c", c.change)).rule().Lost, ""); got != c.want {
			t.Errorf("%s: lost %q, want %q", name, got, c.want)
		}
	}
}

func TestRuleAcknowledges(t *testing.T) {
	late := func(a *asks) { // c's entry is higher since
		a.turn.View.Roster["c"] = Entry{Number: 2}
		a.turn.Digest = a.turn.View.Digest()
	}
	current := func(a *asks) { a.own.Old, a.own.Wants = false, false; peer("c", func(p *Peer) { p.Old = false })(a) }
	before := newAsks()
	a := newAsks(late)
	if r := a.rule(); r.Acknowledge != a.turn.Digest || !reflect.DeepEqual(r.Said.Views, []Digest{before.turn.Digest, a.turn.Digest}) {
		t.Errorf("while something is old the roster is acknowledged: %+v", r)
	}
	if r := newAsks(late, current).rule(); r.Acknowledge != before.turn.Digest || r.Pending {
		t.Errorf("while nothing is old it is not: %+v", r)
	}
	a = newAsks(late, current, func(a *asks) { a.said.Version = older })
	if r := a.rule(); r.Acknowledge != a.turn.Digest {
		t.Errorf("but a version is: %+v", r)
	}
	a = newAsks(func(a *asks) { a.turn.View.Roster["b"] = Entry{Number: 2}; a.turn.Digest = a.turn.View.Digest() })
	if r := a.rule(); !reflect.DeepEqual(r.Said, Said{2, a.turn.View.Version(), []Digest{a.turn.Digest}}) || r.Stranger != "a" || r.Start {
		t.Errorf("what was said with an earlier entry counts: %+v", r)
	}
	away := newAsks(func(a *asks) { a.own.Aside = true }).rule()
	back := newAsks(func(a *asks) { a.memory = away.Memory }).rule()
	if !back.Raise || back.Start || back.Memory.Updating {
		t.Errorf("who said that it shall not start starts: %+v", back)
	}
	if r := newAsks(func(a *asks) { a.excludes("b") }).rule(); !r.Raise || r.Start || r.Acknowledge != before.turn.Digest.lapsed() {
		t.Errorf("who is excluded acknowledges: %+v", r)
	}
}

// TestSaidIsBounded: the latest views are remembered.
func TestSaidIsBounded(t *testing.T) {
	a := newAsks()
	for i := range 3 * maxSaid {
		a.turn.View.Roster["c"] = Entry{Number: uint64(i + 2)}
		a.turn.Digest = a.turn.View.Digest()
		a.said = a.rule().Said
	}
	if n := len(a.said.Views); n != maxSaid || a.said.last() != a.turn.Digest {
		t.Errorf("%d views are remembered, the last is of now: %t", n, a.said.last() == a.turn.Digest)
	}
}

// TestDigestStandsForAll: hosts that tell the same digest know the same of everything that the rule reads.
func TestDigestStandsForAll(t *testing.T) {
	seen := map[Digest]string{}
	for name, change := range map[string]func(*Common){
		"nothing":             func(*Common) {},
		"generation":          func(c *Common) { c.Generation++ },
		"content":             func(c *Common) { c.Hash[31]++ },
		"configs":             func(c *Common) { c.Configs = []byte("new") },
		"an exclusion":        func(c *Common) { c.Exclusions["a"] = Exclusion{Entry: 1} },
		"one that was lifted": func(c *Common) { c.Exclusions["a"] = Exclusion{1, true} },
		"its entry":           func(c *Common) { c.Exclusions["a"] = Exclusion{Entry: 2} },
		"a host":              func(c *Common) { c.Roster["d"] = Entry{Number: 1} },
		"a host's entry":      func(c *Common) { c.Roster["a"] = Entry{Number: 2} },
		"a host that left":    func(c *Common) { c.Roster["a"] = Entry{1, true} },
	} {
		c := newAsks().turn.View
		change(&c)
		if other, found := seen[c.Digest()]; found {
			t.Errorf("%s and %s are the same", name, other)
		}
		seen[c.Digest()] = name
	}
	for name, c := range map[string]struct {
		entry Entry
		void  bool
	}{"of now": {Entry{Number: 2}, false}, "of a host's past": {Entry{Number: 3}, true}, "of one that is out": {Entry{2, true}, true}} {
		with, without := newAsks().turn.View, newAsks().turn.View
		with.Roster["a"], without.Roster["a"] = c.entry, c.entry
		with.Exclusions["a"] = Exclusion{Entry: 2}
		if same := with.Digest() == without.Digest(); same != c.void {
			t.Errorf("an exclusion %s is in the view: %t", name, !same)
		}
	}
}
