package pod

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// hostFiles are the host's own files that pods get copies of.
type hostFiles struct{ hosts, resolvConf, resolved string }

// systemd-resolved keeps the real name servers beside the stub in /etc/resolv.conf, which a pod's network cannot reach.
var etc = hostFiles{hosts: "/etc/hosts", resolvConf: "/etc/resolv.conf", resolved: "/run/systemd/resolve/resolv.conf"}

// The kubelet's text, so that what people grep for is there.
const (
	managedHosts     = "# Kubernetes-managed hosts file.\n"
	managedHostsHost = "# Kubernetes-managed hosts file (host network).\n"
	loopbackHosts    = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`
	clusterDomain = "cluster.local"
)

// maxHostname is what the kernel takes.
const maxHostname = 64

// writeFiles writes the pod's etc-hosts, hostname and resolv.conf below its directory. Containers that run have them mounted:
// they are changed in place, and only when they differ.
func (f facts) writeFiles(dir string, from hostFiles) error {
	hosts, err := f.hostsFile(from)
	if err != nil {
		return err
	}
	resolvConf, err := f.resolvConf(from)
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"etc-hosts": hosts, "resolv.conf": resolvConf, "hostname": f.hostname() + "\n",
	} {
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, []byte(content)) {
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return fmt.Errorf("cannot write the pod's %s: %w", name, err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			return fmt.Errorf("cannot open the pod's %s to readers: %w", name, err)
		}
	}
	return nil
}

// hostname is the name that the kernel has inside the pod: the node's with hostNetwork.
func (f facts) hostname() string {
	if f.pod.Spec.HostNetwork {
		return f.host.Hostname
	}
	name := podHostname(f.pod)
	if domain := podDomain(f.pod); domain != "" && isTrue(f.pod.Spec.SetHostnameAsFQDN) {
		name += "." + domain
	}
	return name
}

// checkHostname refuses a full name that the kernel does not take.
func (f facts) checkHostname() error {
	if name := f.hostname(); len(name) > maxHostname && !f.pod.Spec.HostNetwork {
		return fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)",
			name, maxHostname, len(name))
	}
	return nil
}

// podDomain is what makes the pod's name a full one, "" for no subdomain.
func podDomain(pod *corev1.Pod) string {
	if pod.Spec.Subdomain == "" || pod.Spec.HostnameOverride != nil {
		return ""
	}
	return fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, clusterDomain)
}

// podHostname is the pod's own name for itself. One that nobody chose is cut to 63 characters, as DNS wants it.
func podHostname(pod *corev1.Pod) string {
	if name := pod.Spec.HostnameOverride; name != nil {
		return *name
	}
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
	}
	return name
}

// hostsFile is /etc/hosts as the kubelet writes it.
func (f facts) hostsFile(from hostFiles) (string, error) {
	var out strings.Builder
	if f.pod.Spec.HostNetwork {
		host, err := os.ReadFile(from.hosts)
		if err != nil {
			return "", fmt.Errorf("cannot read the host's hosts file: %w", err)
		}
		out.WriteString(managedHostsHost)
		out.Write(host)
	} else {
		out.WriteString(managedHosts + loopbackHosts)
		names := podHostname(f.pod)
		if domain := podDomain(f.pod); domain != "" {
			names = names + "." + domain + "\t" + names
		}
		for _, ip := range f.ips {
			fmt.Fprintf(&out, "%s\t%s\n", ip, names)
		}
	}
	if len(f.pod.Spec.HostAliases) > 0 {
		out.WriteString("\n# Entries added by HostAliases.\n")
	}
	for _, alias := range f.pod.Spec.HostAliases {
		fmt.Fprintf(&out, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return out.String(), nil
}

// dns is the content of a resolv.conf.
type dns struct{ nameservers, searches, options []string }

// resolv.conf(5) and the kubelet look at no more.
const maxNameservers, maxSearches, maxSearchLine = 3, 32, 2048

// resolvConf follows dnsPolicy and dnsConfig. There is no cluster DNS: ClusterFirst is the host's, as with a kubelet that
// has none.
func (f facts) resolvConf(from hostFiles) (string, error) {
	d, err := f.dns(from)
	d.fit()
	return d.String(), err
}

func (f facts) dns(from hostFiles) (d dns, err error) {
	if f.pod.Spec.DNSPolicy != corev1.DNSNone {
		if d, err = hostDNS(from); err != nil {
			return dns{}, err
		}
	}
	if extra := f.pod.Spec.DNSConfig; extra != nil {
		d.add(extra)
	}
	return d, nil
}

// omissions say, in the kubelet's words, what is left out of the pod's resolv.conf.
func (f facts) omissions(from hostFiles) (list []news) {
	d, err := f.dns(from)
	if err != nil {
		return nil // it is told when the file is written
	}
	servers, searches := len(d.nameservers), len(d.searches)
	d.fit()
	say := func(what, line string) {
		list = append(list, news{corev1.EventTypeWarning, "DNSConfigForming", what + " have been omitted, the applied " + line})
	}
	if len(d.searches) < searches {
		say("Search Line limits were exceeded, some search paths", "search line is: "+strings.Join(d.searches, " "))
	}
	if len(d.nameservers) < servers {
		say("Nameserver limits were exceeded, some nameservers", "nameserver line is: "+strings.Join(d.nameservers, " "))
	}
	return list
}

func hostDNS(from hostFiles) (dns, error) {
	data, err := os.ReadFile(from.resolvConf)
	if os.IsNotExist(err) {
		return dns{}, nil
	}
	if err != nil {
		return dns{}, fmt.Errorf("cannot read the host's resolv.conf: %w", err)
	}
	d := parseResolvConf(string(data))
	if slices.ContainsFunc(d.nameservers, isLoopback) {
		if data, err := os.ReadFile(from.resolved); err == nil {
			d = parseResolvConf(string(data))
		}
	}
	return d, nil
}

func isLoopback(address string) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && ip.IsLoopback()
}

func parseResolvConf(text string) dns {
	var d dns
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			d.nameservers = append(d.nameservers, fields[1])
		case "search", "domain":
			d.searches = fields[1:] // the last one counts
		case "options":
			d.options = append(d.options, fields[1:]...)
		}
	}
	return d
}

// add appends a dnsConfig; an option of the same name is replaced.
func (d *dns) add(extra *corev1.PodDNSConfig) {
	for _, s := range extra.Nameservers {
		if !slices.Contains(d.nameservers, s) {
			d.nameservers = append(d.nameservers, s)
		}
	}
	for _, s := range extra.Searches {
		if !slices.Contains(d.searches, s) {
			d.searches = append(d.searches, s)
		}
	}
	for _, o := range extra.Options {
		d.options = slices.DeleteFunc(d.options, func(old string) bool {
			name, _, _ := strings.Cut(old, ":")
			return name == o.Name
		})
		if o.Value != nil && *o.Value != "" {
			d.options = append(d.options, o.Name+":"+*o.Value)
		} else {
			d.options = append(d.options, o.Name)
		}
	}
}

// fit leaves out what nobody would look at.
func (d *dns) fit() {
	d.nameservers = d.nameservers[:min(len(d.nameservers), maxNameservers)]
	d.searches = d.searches[:min(len(d.searches), maxSearches)]
	for len(strings.Join(d.searches, " ")) > maxSearchLine {
		d.searches = d.searches[:len(d.searches)-1]
	}
}

func (d dns) String() string {
	var out strings.Builder
	if len(d.searches) > 0 {
		fmt.Fprintf(&out, "search %s\n", strings.Join(d.searches, " "))
	}
	for _, s := range d.nameservers {
		fmt.Fprintf(&out, "nameserver %s\n", s)
	}
	if len(d.options) > 0 {
		fmt.Fprintf(&out, "options %s\n", strings.Join(d.options, " "))
	}
	return out.String()
}
