package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Resolver finds the addresses of a name; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	// joinAtOnce is how many hosts are called in one round: each call exchanges the state of the whole fleet.
	joinAtOnce = 3
	// lookAround is in how many rounds after the start a host compares with one that is there, besides.
	lookAround = 4
	// resolveTimeout bounds the look-ups of a round.
	resolveTimeout = 2 * time.Second
	// maxPlaces bounds what a file or a name may bring.
	maxPlaces = 1024
	// seedRest is how long a seed that answered is left alone, though no member has its address: it may be behind a translation.
	seedRest = 30 * time.Second

	schemeDNS  = "dns+"
	schemeFile = "file:"
)

// CheckJoin says what is wrong with one place of cluster.join.
func CheckJoin(place string) error {
	if path, ok := strings.CutPrefix(place, schemeFile); ok {
		if path == "" {
			return fmt.Errorf("%q names no file", place)
		}
		return nil
	}
	_, _, err := splitPlace(strings.TrimPrefix(place, schemeDNS))
	return err
}

func splitPlace(place string) (host string, port uint16, err error) {
	host, digits, err := net.SplitHostPort(place)
	if err != nil || host == "" {
		return "", 0, fmt.Errorf("%q is not host:port, dns+name:port or file:PATH", place)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q has no port", place)
	}
	return host, uint16(n), nil
}

// places are the addresses behind the places of cluster.join. What cannot be read or found is logged and tried again in the next
// round: a name or a file may come later than the agent.
func (m *Membership) places(ctx context.Context, join []string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, place := range join {
		found, err := m.expand(ctx, place)
		if err != nil {
			m.stats.failedPlaces.Add(1)
			m.log.Debug("a place of cluster.join leads nowhere", "place", place, "err", err)
		}
		all = append(all, found...)
	}
	return all[:min(len(all), maxPlaces)]
}

func (m *Membership) expand(ctx context.Context, place string) ([]netip.AddrPort, error) {
	path, ok := strings.CutPrefix(place, schemeFile)
	if !ok {
		return m.resolve(ctx, strings.TrimPrefix(place, schemeDNS))
	}
	lines, err := readPlaces(path)
	if err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	var errs error
	for _, line := range lines { // a file in a file is no file: CheckJoin of what is left refuses it
		found, err := m.resolve(ctx, strings.TrimPrefix(line, schemeDNS))
		all, errs = append(all, found...), errors.Join(errs, err)
	}
	return all, errs
}

func readPlaces(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); ; {
		if !s.Scan() || len(lines) == maxPlaces {
			return lines, s.Err()
		}
		if line := strings.TrimSpace(s.Text()); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
}

// resolve finds all addresses of host:port.
func (m *Membership) resolve(ctx context.Context, place string) ([]netip.AddrPort, error) {
	host, port, err := splitPlace(place)
	if err != nil {
		return nil, err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(addr.Unmap(), port)}, nil
	}
	var resolver Resolver = net.DefaultResolver
	if r := m.config.Gossip.Resolver; r != nil {
		resolver = r
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	for _, addr := range addrs {
		all = append(all, netip.AddrPortFrom(addr.Unmap(), port))
	}
	return all, nil
}

// rejoin looks for missing hosts for ever. Without it a split never heals: after half a minute each side has forgotten the other.
func (m *Membership) rejoin() {
	wait := m.profile.rejoinEvery / 8
	for rounds := 0; ; rounds++ {
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		}
		m.round(rounds < lookAround)
		wait = m.profile.rejoinEvery
	}
}

func (m *Membership) round(young bool) {
	m.saveAddresses()
	m.reap()
	if err := m.settle(); err != nil {
		m.log.Error("this host's place in the roster cannot be kept", "err", err)
	}
	targets := m.missing()
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	for _, addr := range targets[:min(len(targets), joinAtOnce)] {
		m.call(addr)
	}
	// Hosts that join at one time may miss each other's news, and push/pull is the only way to hear that a conflict is over, or of
	// hosts again that were turned away.
	if turned := m.turnedAway.Swap(false); young || turned || m.inConflict() {
		for _, addr := range m.others() {
			m.call(addr)
			break
		}
	}
}

// call exchanges states with one address, beside the loop.
func (m *Membership) call(addr netip.AddrPort) {
	m.mu.Lock()
	busy := m.dialing[addr]
	m.dialing[addr] = true
	m.mu.Unlock()
	if busy {
		return
	}
	started := m.calls.TryGo(func() error {
		m.stats.joinsTried.Add(1)
		_, err := m.list.Join([]string{addr.String()})
		m.called(addr, err == nil)
		return nil
	})
	if !started {
		m.called(addr, false)
	}
}

func (m *Membership) called(addr netip.AddrPort, answered bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.dialing, addr)
	if answered {
		m.stats.joinsAnswered.Add(1)
		m.reached[addr] = time.Now()
	}
}

// missing are the addresses of hosts that should be there and are not: seeds, and members that were seen before.
func (m *Membership) missing() []netip.AddrPort {
	m.mu.Lock()
	seeds := m.seeds
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(m.ctx, resolveTimeout)
	defer cancel()
	found := m.places(ctx, seeds)
	standings := m.roster.All()

	m.mu.Lock()
	defer m.mu.Unlock()
	here := map[netip.AddrPort]bool{m.me: true}
	for _, p := range m.peers {
		if p.alive && !p.doubted {
			here[p.addr] = true
		}
	}
	var targets []netip.AddrPort
	add := func(addr netip.AddrPort) {
		if addr.IsValid() && !here[addr] {
			here[addr] = true
			targets = append(targets, addr)
		}
	}
	for _, s := range standings {
		if p := m.peers[s.Node]; p != nil && (!p.alive || p.doubted) && s.State <= RosterReaped {
			add(p.addr)
		}
	}
	for addr, at := range m.reached {
		if time.Since(at) > seedRest {
			delete(m.reached, addr)
		}
	}
	for _, addr := range found {
		if _, rests := m.reached[addr]; !rests {
			add(addr)
		}
	}
	return targets
}

// saveAddresses keeps where members are, for the next start.
func (m *Membership) saveAddresses() {
	now := map[string]netip.AddrPort{}
	m.mu.Lock()
	for node, p := range m.peers {
		if p.addr.IsValid() && node != m.config.Node {
			now[node] = p.addr
		}
	}
	m.mu.Unlock()
	for node := range now {
		if _, listed := m.roster.Standing(node); !listed {
			delete(now, node)
		}
	}
	if err := m.addresses.save(now); err != nil {
		m.log.Error("the addresses of other hosts are not kept", "err", err)
	}
}

// reap says that members are reaped that were out of reach for long. They come back by themselves.
func (m *Membership) reap() {
	if m.config.ReapAfter <= 0 {
		return
	}
	for _, s := range m.roster.All() {
		if s.State != RosterMember || s.Node == m.config.Node || !m.goneFor(s.Node, m.config.ReapAfter) {
			continue
		}
		m.log.Warn("a host is out of reach for long: it is no member until it returns", "node", s.Node, "after", m.config.ReapAfter)
		if err := m.judge(s.Node, RosterReaped); err != nil {
			m.log.Error("a host cannot be reaped", "node", s.Node, "err", err)
		}
	}
}

// goneFor also begins to count for a host that was never seen since the start.
func (m *Membership) goneFor(node string, d time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.peers[node]
	if p == nil {
		m.peers[node] = &peer{since: time.Now()}
		return false
	}
	return !p.alive && time.Since(p.since) >= d
}

func (m *Membership) inConflict() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.conflicts[m.config.Node]
	return ok && time.Since(c.Last) < conflictGone
}
