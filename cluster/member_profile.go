package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxFleetName keeps the label, which is in every packet, small.
const maxFleetName = 64

// profile is how patient hosts are with each other.
type profile struct {
	list func() *memberlist.Config
	// rejoinEvery is how long a round of looking for missing hosts is, at most; at least half of it.
	rejoinEvery  time.Duration
	leaveTimeout time.Duration
}

var profiles = map[string]profile{
	"lan":   {list: lanConfig, rejoinEvery: 4 * time.Second, leaveTimeout: 2 * time.Second},
	"wan":   {list: memberlist.DefaultWANConfig, rejoinEvery: 15 * time.Second, leaveTimeout: 5 * time.Second},
	"local": {list: memberlist.DefaultLocalConfig, rejoinEvery: 2 * time.Second, leaveTimeout: time.Second},
}

// lanConfig finds a dead host twice as fast as memberlist's own (GOSSIP.md).
func lanConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = 500*time.Millisecond, 300*time.Millisecond, 3
	c.TCPTimeout = 5 * time.Second
	// A host that has to find out alone, because it missed what others said, takes 4.5 s and not 9. What it finds is checked.
	c.SuspicionMaxTimeoutMult = 3
	return c
}

func profileOf(name string) (profile, error) {
	if name == "" {
		name = "lan"
	}
	p, ok := profiles[name]
	if !ok {
		return p, fmt.Errorf("no profile %q: lan, wan or local", name)
	}
	return p, nil
}

// reclaimAfter is how long a host must have been failed before its name is taken over from another address.
const reclaimAfter = time.Second

func (m *Membership) listConfig() (*memberlist.Config, error) {
	c := m.profile.list()
	c.Name, c.Label = m.config.Node, m.config.Fleet
	c.UDPBufferSize = packetSize
	c.MetricLabels = m.gossip.labels()
	c.DeadNodeReclaimTime = reclaimAfter
	c.LogOutput, c.Logger = nil, memberlistLog(m.log, func() { m.stats.refusedTraffic.Add(1) })
	if m.keys != nil {
		c.Keyring = m.keys.ring
	}
	c.Delegate, c.Events, c.Conflict, c.Ping, c.Alive = delegate{m}, delegate{m}, delegate{m}, delegate{m}, delegate{m}
	bind, err := netip.ParseAddrPort(m.config.Gossip.Bind)
	if err != nil {
		return nil, fmt.Errorf("cluster.bind %q is no address and port: %w", m.config.Gossip.Bind, err)
	}
	c.BindAddr, c.BindPort = bind.Addr().String(), int(bind.Port())
	if t := m.config.Gossip.Transport; t != nil {
		c.Transport = m.guarded(t)
		return c, nil
	}
	if err := m.advertise(c, bind); err != nil {
		return nil, err
	}
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: c.Logger, MetricLabels: c.MetricLabels,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot listen for other hosts: %w", err)
	}
	if c.AdvertisePort == 0 { // port 0 is any free one
		c.AdvertisePort = t.GetAutoBindPort()
	}
	c.Transport = m.guarded(netTransport{NetTransport: t, ctx: m.ctx})
	return c, nil
}

func (m *Membership) guarded(t memberlist.NodeAwareTransport) memberlist.NodeAwareTransport {
	return newGuard(t, m.keys, m.config.Fleet, &m.stats.refusedTraffic)
}

// advertise settles the address that others use. memberlist would guess a private one, and fail where there is none.
func (m *Membership) advertise(c *memberlist.Config, bind netip.AddrPort) error {
	host, port := m.config.Gossip.Advertise, bind.Port()
	if at, err := netip.ParseAddrPort(host); err == nil {
		host, port = at.Addr().String(), at.Port()
	}
	if host == "" && bind.Addr().IsUnspecified() {
		host = m.towardsSeed()
	}
	if host == "" && !bind.Addr().IsUnspecified() {
		host = bind.Addr().String()
	}
	if addr, err := netip.ParseAddr(host); err != nil || addr.IsUnspecified() {
		return fmt.Errorf("cluster.bind is %s: say in cluster.advertise under which address other hosts reach this one", m.config.Gossip.Bind)
	}
	c.AdvertiseAddr, c.AdvertisePort = host, int(port)
	return nil
}

// towardsSeed is the address from which this host would send to the first seed that has one; nothing is sent.
func (m *Membership) towardsSeed() string {
	ctx, cancel := context.WithTimeout(m.ctx, resolveTimeout)
	defer cancel()
	for _, seed := range m.places(ctx, m.seeds) {
		conn, err := net.Dial("udp", seed.String())
		if err != nil {
			continue
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		_ = conn.Close()
		if !local.IsLoopback() || seed.Addr().IsLoopback() {
			return local.String()
		}
	}
	return ""
}

// netTransport is memberlist's own, whose dials and streams end with the membership.
type netTransport struct {
	*memberlist.NetTransport
	ctx context.Context // of the membership: memberlist gives none
}

func (t netTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(t.ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return endingConn{Conn: conn, forget: context.AfterFunc(t.ctx, func() { _ = conn.Close() })}, nil
}

func (t netTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

type endingConn struct {
	net.Conn
	forget func() bool
}

func (c endingConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

func udpAddr(a netip.AddrPort) *net.UDPAddr { return net.UDPAddrFromAddrPort(a) }

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(slices.Clone(ip))
	return netip.AddrPortFrom(addr.Unmap(), port)
}
