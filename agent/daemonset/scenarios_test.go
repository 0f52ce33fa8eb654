package daemonset

import (
	"fmt"
	"strings"
	"testing"
)

// scenario is a fixed schedule that shows what one clause of the rule is there for. The script is a line of commands to the hosts a, b,
// c, ...; where it is not obvious who takes a turn first, it is the first by name:
//
//	write a 2    a writes version 2, of revision 2          hear a b     a hears all that b tells now
//	start a      a does what the rule lets it, if anything  finish a     its new pod is available
//	save a       what a tells now is kept ...               old b a      ... and arrives at b late
//	fail a b     a does not hear b any more                 exclude a b  a finds that its version may go on without b, if it may
//	restart a    its agent restarts                         wipe a       it also loses its disk
//	taint a      a is not placed any more, or again         aside a      it cannot make the next pod, or can again
//	permit a     what a may do now it shall do later ...    use a        ... which is now (without the clause against it)
//	turn a       a learns what would turn its order round   persist a    what is on a's disk if it tells more than it keeps
//	stick a      a passes its deadline                      config a     a writes a ConfigMap that restarts the pods
//	fill a       a's disk does not take what a says
//	mute a       a cannot raise its entry                   lift a       a lets those count again that it knows better of
type scenario struct {
	why     string
	without mutant // the clause that it needs
	hosts   int
	knows   []string // of each host, "" is all
	budget  int
	percent bool
	surge   bool
	script  string
	starts  string // who takes its pod down, in order, with the rule as it is
}

// updateA is the beginning of many: a and b agree on version 1, a updates, and b has not yet.
const updateA = "write a 1; hear b a; hear a b; start a; finish a; hear b a; "

var scenarios = []scenario{
	{
		why:     "a acknowledged the version before, and nobody knows what it does under this one",
		without: noAck, hosts: 2, budget: 1, starts: "",
		script: "hear a b; hear b a; write a 1; start a; write b 1; start b",
	}, {
		why:     "a said that it is not placed, but before c joined; with c it is agreed upon anew, and now a is placed",
		without: noRoster, hosts: 3, knows: []string{"ab", "ab", "abc"}, budget: 1, starts: "a",
		script: "write b 1; taint a; hear a b; hear b a; taint a; hear c b; hear a c; hear b c; hear a b; start a; start b",
	}, {
		why:     "two that may both start agree who is first",
		without: noRank, hosts: 2, budget: 1, starts: "a",
		script: "write a 1; hear b a; hear a b; start a; start b",
	}, {
		why:     "nobody counts by an order that only it knows",
		without: noTurn, hosts: 2, budget: 1, starts: "a",
		script: "write a 1; hear b a; hear a b; turn b; start a; start b",
	}, {
		why:     "three hosts, each of which knows one other, get one file: nobody starts before those that it knows know it",
		without: noStranger, hosts: 3, knows: []string{"ac", "ab", "bc"}, budget: 2, starts: "",
		script: "write a 1; start a; write b 1; start b; write c 1; start c",
	}, {
		why:     "b told a that it knows version 2: it may not wake up without it, hear version 1 late and take its turn in that",
		without: noPersist, hosts: 2, budget: 1, starts: "a a",
		script: "persist b; " + updateA + "save a; write a 2; hear b a; hear a b; restart b; old b a; start b; start a",
	}, {
		why:     "b's pod was told to stop and lives on in its grace period: it is not available, also after a restart of the agent",
		without: noIntent, hosts: 2, budget: 1, starts: "a b",
		script: updateA + "start b; restart b; write a 2; hear b a; hear a b; start a",
	}, {
		why:     "b might have started under version 1, but has acknowledged version 2 since",
		without: noAtomic, hosts: 2, budget: 1, starts: "a a",
		script: updateA + "permit b; write a 2; hear b a; hear a b; start a; use b",
	}, {
		why:     "b passes a over, which said that it is not placed; then it is",
		without: noEntry, hosts: 2, budget: 1, starts: "b",
		script: "write b 1; taint a; hear a b; hear b a; taint a; start a; start b",
	}, {
		why:     "a had no label when b last heard of it, and is not heard any more: it may have one",
		without: noOwnWord, hosts: 2, budget: 1, starts: "a",
		script: "taint a; hear b a; taint a; write a 1; write b 1; hear a b; start a; fail b a; start b",
	}, {
		why:     "two ConfigMaps are written at once, and each restarts the pods",
		without: noConfig, hosts: 2, budget: 1, starts: "",
		script: "hear a b; hear b a; config a; start a; config b; start b",
	}, {
		why:     "version 1 went on without b; b has acknowledged version 2, and is in its turn",
		without: noScope, hosts: 3, budget: 1, starts: "b",
		script: "taint c; hear a c; hear b c; write a 1; fail a b; exclude a b; fail b a; write b 2; exclude b a; write c 2; fail c a; exclude c a;" +
			"hear b c; start b; hear a c; fail c b; hear c a; hear a c; start a",
	}, {
		why:     "c wrongly thinks that a is down, b hears it",
		without: noVouch, hosts: 3, budget: 1, starts: "a",
		script: "write a 1; hear b a; hear c a; hear a b; hear a c; start a; fail c a; write c 2; exclude c a; hear b c; start b",
	}, {
		why:     "b told a that it knows version 2, and has forgotten",
		without: noWipe, hosts: 2, budget: 1, starts: "a a",
		script: updateA + "save a; write a 2; hear b a; hear a b; wipe b; old b a; start b; start a",
	}, {
		why:     "a is tainted in its turn: its pod is down all the same",
		without: noUpdating, hosts: 2, budget: 1, starts: "a",
		script: "write a 1; hear b a; hear a b; start a; taint a; hear b a; start b",
	}, {
		why:     "half of two is one, however many hosts do not run it",
		without: noShare, hosts: 4, budget: 50, percent: true, starts: "a",
		script: "taint c; taint d; write a 1; hear b a; hear c a; hear d a; hear a b; hear a c; hear a d; hear b a; start a; start b",
	}, {
		why:     "a does not get well: b would be the second to fail",
		without: noHalt, hosts: 3, budget: 2, starts: "a",
		script: "write a 1; hear b a; hear c a; hear a b; hear a c; start a; stick a; hear b a; start b",
	}, {
		why:     "c went on without a; a, which counts again, has c's word from before that, and waits for the next",
		without: noLift, hosts: 3, budget: 1, starts: "c",
		script: "taint b; write c 1; hear b c; hear a c; hear a b; fail c a; exclude c a; fail b a; exclude b a; hear c b; start c; heal b a;" +
			"lift b; hear a b; start a",
	}, {
		why:     "a was lost in its turn; c, which never heard that a took the version up, excludes it, and b knows better",
		without: noWord, hosts: 3, budget: 1, starts: "a",
		script: "write b 1; write c 1; hear a b; hear a c; start a; hear b a; fail b a; fail c a; exclude c a; hear b c; hear c b; start b",
	}, {
		why:     "b passes a over, which said that it is not placed, and was not able to write that down before its agent restarted",
		without: noDoubt, hosts: 2, budget: 1, starts: "b",
		script: "fill a; write b 1; taint a; hear a b; hear b a; taint a; restart a; hear a b; start a; start b",
	}, {
		why:     "b runs its old pod beside the new one of version 1, and has acknowledged version 2 since",
		without: noSecond, hosts: 2, budget: 1, surge: true, starts: "a b",
		script: updateA + "start b; write a 2; hear b a; hear a b; start a",
	}, {
		why:   "d returns and cannot raise its entry: it is taken back, and takes its turn as everybody",
		hosts: 4, budget: 1, starts: "a b c d",
		script: "write a 1; hear b a; hear c a; fail a d; exclude a d; fail b d; fail c d; hear b a; hear c a; hear a b; hear a c; start a; finish a;" +
			"mute d; heal a d; heal b d; heal c d; hear d a; hear a d; hear b a; hear c a; start b; lift a; hear b a; hear c a; hear d a; hear b d; hear b c; start b; finish b;" +
			"hear c b; hear c d; start c; finish c; hear d a; hear d b; hear d c; start d",
	}, {
		why:   "c was down before the apply: the version goes on without it, once it is found to have failed",
		hosts: 3, budget: 1, starts: "a b",
		script: "write a 1; hear b a; hear a b; start a; fail a c; exclude a c; fail b c; start a; hear b a; hear a b; start a; finish a; hear b a; start b",
	}, {
		why:   "c acknowledged and is lost then, perhaps by the update: all wait",
		hosts: 3, budget: 1, starts: "",
		script: "write a 1; hear b a; hear c a; hear a b; hear a c; hear b c; fail a c; exclude a c; fail b c; exclude b c; hear b a; hear a b; start a",
	}, {
		why:   "c is lost in its turn; another version, which c never heard of, waits for it all the same",
		hosts: 3, budget: 1, starts: "c",
		script: "write c 1; taint a; taint b; hear a c; hear b c; hear c a; hear c b; start c; hear a c; taint a; taint b;" +
			"write a 2; hear b a; fail a c; exclude a c; fail b c; exclude b c; hear b a; hear a b; start a",
	}, {
		why:   "c comes back and says so before it acknowledges; all agree anew and c takes its turn as everybody",
		hosts: 3, budget: 1, starts: "a b c",
		script: "write a 1; fail a c; exclude a c; hear b a; fail b c; hear a b; start a; finish a; heal a c; heal b c; hear c a; hear b c; hear a b;" +
			"hear b a; hear c a; start b; finish b; hear c b; start c",
	}, {
		why:   "a cannot make the new pod: it is passed over, and when it can it asks all again before it starts",
		hosts: 2, budget: 1, starts: "b a",
		script: "write a 1; aside a; hear b a; hear a b; start b; finish b; aside a; hear a b; start a; hear b a; hear a b; start a",
	}, {
		why:   "a was stuck; another version is tried, and a, which is not available, does not stop b",
		hosts: 3, budget: 2, starts: "a b",
		script: "write a 1; hear b a; hear c a; hear a b; hear a c; start a; stick a; hear b a; start b; write b 2; hear a b; hear c b; hear b a; hear b c; start b",
	}, {
		why:   "the way back is written on two hosts at once, and is one version",
		hosts: 2, budget: 1, starts: "a a",
		script: updateA + "write a 0; write b 0; hear a b; hear b a; start a",
	},
}

// scenarioRun is a scenario that is played.
type scenarioRun struct {
	*simulation
	saved   map[int]*simState
	onDisk  map[int]simCommon
	started []string
	broke   string
}

func (c scenario) play(t *testing.T, without mutant) scenarioRun {
	s := newFleet(1, without, true)
	r := scenarioRun{simulation: s, saved: map[int]*simState{}, onDisk: map[int]simCommon{}}
	s.version(1, simContent{budget: c.budget, percent: c.percent, surge: c.surge})
	for i := range c.hosts {
		h := &simHost{exists: true, available: true, placed: true}
		for j := range c.hosts {
			if c.knows == nil || strings.Contains(c.knows[i], simNames[j]) {
				h.common.roster[j] = 1
			}
		}
		s.hosts = append(s.hosts, h)
	}
	for i := range s.hosts {
		s.say(i)
	}
	for line := range strings.SplitSeq(c.script, ";") {
		words := strings.Fields(line)
		other := 0
		if len(words) > 2 {
			other = int(words[2][0] - 'a')
		}
		do := scenarioCommands[words[0]]
		if do == nil {
			t.Fatalf("no command %q", line)
		}
		s.note("> %s", line)
		if words[0] == "write" {
			r.write(int(words[1][0]-'a'), simContent{revision: int(words[2][0] - '0'), budget: c.budget, percent: c.percent, surge: c.surge})
		}
		do(&r, int(words[1][0]-'a'), other)
		if r.broke == "" {
			r.broke = s.broken()
		}
	}
	return r
}

var scenarioCommands = map[string]func(r *scenarioRun, i, j int){
	"write":   func(*scenarioRun, int, int) {},
	"config":  func(r *scenarioRun, i, _ int) { r.configure(i) },
	"hear":    func(r *scenarioRun, i, j int) { r.deliver(i, j, &r.hosts[j].simState) },
	"save":    func(r *scenarioRun, i, _ int) { r.saved[i] = new(r.hosts[i].simState) },
	"old":     func(r *scenarioRun, i, j int) { r.deliver(i, j, r.saved[j]) },
	"finish":  func(r *scenarioRun, i, _ int) { r.finish(i, r.current(r.hosts[i].common)) },
	"persist": func(r *scenarioRun, i, _ int) { r.onDisk[i] = r.hosts[i].common },
	"wipe":    func(r *scenarioRun, i, _ int) { r.wipe(i) },
	"taint":   func(r *scenarioRun, i, _ int) { r.taint(i) },
	"aside":   func(r *scenarioRun, i, _ int) { r.standAside(i) },
	"stick":   func(r *scenarioRun, i, _ int) { r.stick(i) },
	"fill":    func(r *scenarioRun, i, _ int) { r.fill(i) },
	"mute":    func(r *scenarioRun, i, _ int) { r.silence(i) },
	"lift":    func(r *scenarioRun, i, _ int) { r.lift(i) },
	"permit":  func(r *scenarioRun, i, _ int) { r.hosts[i].permit = new(r.hosts[i].ruling) },
	"turn":    func(r *scenarioRun, i, _ int) { r.hosts[i].turned = true; r.say(i) },
	"fail":    func(r *scenarioRun, i, j int) { r.hosts[i].failed[j] = true; r.say(i) },
	"heal":    func(r *scenarioRun, i, j int) { r.hosts[i].failed[j] = false; r.say(i) },
	"restart": func(r *scenarioRun, i, _ int) {
		if disk, kept := r.onDisk[i]; kept {
			r.hosts[i].disk = disk
		}
		r.restart(i)
	},
	"exclude": func(r *scenarioRun, i, j int) {
		if strings.Contains(strings.Join(r.hosts[i].ruling.Lost, ""), simNames[j]) {
			r.exclude(i, j)
			r.settle(i)
		}
	},
	"start": func(r *scenarioRun, i, _ int) {
		if r.mayAct(i) {
			r.begun(i, r.hosts[i].ruling)
		}
	},
	"use": func(r *scenarioRun, i, _ int) {
		if permit := r.hosts[i].permit; r.without == noAtomic && permit.Start {
			r.begun(i, *permit)
		}
	},
}

func (r *scenarioRun) begun(i int, ruling Ruling) {
	if r.act(i, ruling); ruling.Start {
		r.started = append(r.started, simNames[i])
	}
	r.say(i)
}

// TestScenarios plays each with the rule as it is, and without the clause that it is about: then it must break the promise.
func TestScenarios(t *testing.T) {
	for _, c := range scenarios {
		t.Run(c.why, func(t *testing.T) {
			r := c.play(t, intact)
			if got := strings.Join(r.started, " "); got != c.starts || r.broke != "" {
				t.Errorf("starts %q, want %q; broken: %q\n%s\n%s", got, c.starts, r.broke, strings.Join(r.trace, "\n"), r.stand())
			}
			if c.without == intact {
				return
			}
			if r := c.play(t, c.without); r.broke == "" {
				t.Errorf("without the clause nothing is broken\n%s\n%s", strings.Join(r.trace, "\n"), r.stand())
			}
		})
	}
}

// stand is how all hosts stand.
func (s *simulation) stand() string {
	var lines []string
	for i, h := range s.hosts {
		lines = append(lines, fmt.Sprintf("%s: version %d runs %d available %t updating %t roster %v out %b excl %v: %+v", simNames[i], h.common.version,
			h.runs, h.available, h.updating, h.common.roster[:len(s.hosts)], h.common.out, h.common.exclusions[:len(s.hosts)], h.ruling))
	}
	return strings.Join(lines, "\n")
}

// TestEveryClauseHasAScenario: a clause that comes later is not forgotten here.
func TestEveryClauseHasAScenario(t *testing.T) {
	for _, m := range mutants {
		found := false
		for _, c := range scenarios {
			found = found || c.without == m
		}
		if !found {
			t.Errorf("%s: no scenario", m)
		}
	}
}
