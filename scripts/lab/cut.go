package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/picketd/picket/runtime/runtimetest"
)

// What is lost on the way to a host is dropped where it arrives, by iptables' raw table in the host's own namespace, which nothing
// else uses there: before connections are tracked, and also what would go on to a pod. A pod's packets to other hosts carry its
// host's address. Every rule is known by its comment.

// Cut loses everything that one host sends to another; what the other sends still arrives.
func (l *Lab) Cut(from, to *Host) error {
	return to.filter(func(rules []string) []string { return with(rules, cut(from)) })
}

// Mend is the reverse of Cut.
func (l *Lab) Mend(from, to *Host) error {
	return to.filter(func(rules []string) []string { return without(rules, mark("cut", from)) })
}

// CutBoth loses everything between two hosts.
func (l *Lab) CutBoth(a, b *Host) error { return errors.Join(l.Cut(a, b), l.Cut(b, a)) }

// MendBoth is the reverse of CutBoth.
func (l *Lab) MendBoth(a, b *Host) error { return errors.Join(l.Mend(a, b), l.Mend(b, a)) }

// Isolate loses everything between a host and all others.
func (l *Lab) Isolate(h *Host) error {
	others := slices.DeleteFunc(slices.Clone(l.Hosts), func(o *Host) bool { return o == h })
	return l.Partition([]*Host{h}, others)
}

// Partition loses everything between hosts that are in different groups.
func (l *Lab) Partition(groups ...[]*Host) error {
	return each(slices.Concat(groups...), func(to *Host) error {
		return to.filter(func(rules []string) []string {
			for _, group := range groups {
				if slices.Contains(group, to) {
					continue
				}
				for _, from := range group {
					rules = with(rules, cut(from))
				}
			}
			return rules
		})
	})
}

// Drop loses a part of what a host sends to the others and gets from them, in percent, at random; 0 ends it.
func (l *Lab) Drop(h *Host, percent float64) error {
	match := fmt.Sprintf("-m statistic --mode random --probability %g", percent/100)
	return each(l.Hosts, func(to *Host) error {
		return to.filter(func(rules []string) []string {
			rules = without(rules, mark("loss", h))
			for _, from := range l.Hosts {
				if percent > 0 && from != to && (from == h || to == h) {
					rules = append(rules, rule(from, mark("loss", h), match))
				}
			}
			return rules
		})
	})
}

// Heal ends all cuts, losses and delays.
func (l *Lab) Heal() error {
	return each(l.Hosts, func(h *Host) error {
		err := h.filter(func([]string) []string { return nil })
		if l.lock == nil {
			return err // the delays are another process's
		}
		return errors.Join(err, l.Delay(h, 0, 0))
	})
}

func cut(from *Host) string { return rule(from, mark("cut", from), "") }

func mark(kind string, h *Host) string { return kind + ":" + h.Name }

// rule drops what a host sends, in the words in which iptables lists it.
func rule(from *Host, mark, match string) string {
	words := fmt.Sprintf("-A PREROUTING -s %s/32 -m comment --comment %q %s -j DROP", from.Address, mark, match)
	return strings.Join(strings.Fields(words), " ")
}

func with(rules []string, rule string) []string {
	return append(without(rules, markOf(rule)), rule)
}

func without(rules []string, mark string) []string {
	return slices.DeleteFunc(rules, func(rule string) bool { return markOf(rule) == mark })
}

func markOf(rule string) string {
	_, rest, _ := strings.Cut(rule, "--comment ")
	mark, _, _ := strings.Cut(rest, " ")
	return strings.Trim(mark, `"`)
}

// filter changes what of the others' packets the host never sees.
func (h *Host) filter(change func(rules []string) []string) error {
	h.filtering.Lock()
	defer h.filtering.Unlock()
	rules, err := h.rules()
	if err != nil {
		return err
	}
	return h.setRules(change(rules))
}

func (h *Host) setRules(rules []string) error {
	lines := slices.Concat([]string{"*raw", ":PREROUTING ACCEPT"}, rules, []string{"COMMIT", ""})
	cmd := exec.Command(tool("iptables-restore"), "--wait")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	if err := run(h.Namespace, cmd); err != nil {
		return fmt.Errorf("cannot change what reaches %s: %w", h.Name, err)
	}
	return nil
}

// rules are those of the host, as setRules takes them.
func (h *Host) rules() ([]string, error) {
	var out, said bytes.Buffer
	cmd := exec.Command(tool("iptables"), "--wait", "-t", "raw", "-S", "PREROUTING")
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := runtimetest.InNetwork(h.Namespace, cmd.Run); err != nil {
		return nil, fmt.Errorf("cannot read what reaches %s: %w: %s", h.Name, err, said.Bytes())
	}
	rules := strings.Split(strings.TrimSpace(out.String()), "\n")
	return slices.DeleteFunc(rules, func(r string) bool { return !strings.HasPrefix(r, "-A ") }), nil
}
