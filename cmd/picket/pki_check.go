package main

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/picketd/picket/cluster/pki"
)

// socketUser is the author of what comes through an agent's socket: no user may look like it.
const socketUser = "unix-socket"

// userName is what is told apart in logs and events without doubt. A certificate's name has 64 characters at most.
var userName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._@+-]{0,62}[a-z0-9])?$`)

// numeric are names that were meant to be IP addresses.
var numeric = regexp.MustCompile(`(^|\.)[0-9]+$`)

func checkUser(name string) error {
	switch {
	case name == socketUser:
		return fmt.Errorf("%q is the author of what comes through a host's unix socket: give the user another name", name)
	case !userName.MatchString(name):
		return fmt.Errorf("%s cannot be the name of a user: at most 64 lower case letters, digits and . _ @ + -, with a letter or digit at both ends", shortened(name))
	}
	return nil
}

// checkHost holds a host to what its agent demands of node.name, so that no certificate is made which no agent will use.
func checkHost(h pki.Host) error {
	switch errs := validation.IsDNS1123Subdomain(h.Node); {
	case len(errs) > 0:
		return fmt.Errorf("%s cannot be the name of a host: %s", shortened(h.Node), strings.Join(errs, "; "))
	case len(h.Node) > validation.LabelValueMaxLength:
		return fmt.Errorf("%s cannot be the name of a host: it has more than %d characters", shortened(h.Node), validation.LabelValueMaxLength)
	case len(h.Addresses) == 0:
		return fmt.Errorf("--address: give one address at least under which others reach host %s", h.Node)
	}
	for _, address := range h.Addresses {
		if err := checkAddress(address); err != nil {
			return fmt.Errorf("--address: %s %w", shortened(address), err)
		}
	}
	return nil
}

// checkAddress takes an IP address or a DNS name; the error goes on from it.
func checkAddress(address string) error {
	ip, err := netip.ParseAddr(address)
	switch {
	case err == nil && (ip.IsUnspecified() || ip.IsMulticast()):
		return fmt.Errorf("is not the address of one host: give one that others can reach, such as 10.0.0.1")
	case err == nil:
		return nil
	}
	if _, _, err := net.SplitHostPort(address); err == nil {
		return fmt.Errorf("has a port: a certificate is for addresses, leave the port away")
	}
	if numeric.MatchString(address) || len(validation.IsDNS1123Subdomain(address)) > 0 {
		return fmt.Errorf("is neither an IP address nor a DNS name in lower case, such as 10.0.0.1 or host-01.lan")
	}
	return nil
}

func checkServer(server string) error {
	host, port, err := net.SplitHostPort(server)
	if err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 && checkAddress(host) == nil {
			return nil
		}
	}
	return fmt.Errorf("--server: %s is not the HOST:PORT of an API, such as 10.0.0.1:9746", shortened(server))
}

// shortened quotes what a user has given, for an error that can be read.
func shortened(s string) string {
	const most = 80
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return fmt.Sprintf("%q... (%d characters)", s[:most], len(s))
}

func exactlyOneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return cmdutil.UsageErrorf(cmd, "one NAME is needed, %d were given", len(args))
	}
	return nil
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return cmdutil.UsageErrorf(cmd, "unexpected arguments: %q", args)
	}
	return nil
}

// requireDirectory adds a flag that must name a directory.
func requireDirectory(cmd *cobra.Command, value *string, name, usage string) {
	cmd.Flags().StringVar(value, name, "", usage)
	require(cmd, name)
	_ = cmd.MarkFlagDirname(name) // fails only for a flag that is not there
}

// require refuses a command without these flags, or with an empty one: what a script has in an unset variable is not this directory.
func require(cmd *cobra.Command, names ...string) {
	next := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range names {
			if f := cmd.Flags().Lookup(name); blank(f) {
				return cmdutil.UsageErrorf(cmd, "--%s is needed: %s", name, f.Usage)
			}
		}
		if next != nil {
			return next(cmd, args)
		}
		return nil
	}
}

func blank(f *pflag.Flag) bool {
	text := f.Value.String()
	return text == "" || text == "[]"
}
