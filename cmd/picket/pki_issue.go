package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/picketd/picket/cluster/pki"
)

// destination is where what was made goes, and where the authority is that makes it.
type destination struct {
	dir, out string
	validity time.Duration
	force    bool
}

func (d *destination) addFlags(cmd *cobra.Command) {
	requireDirectory(cmd, &d.dir, "dir", "Directory of the fleet's authority, made by picket pki init.")
	cmd.Flags().DurationVar(&d.validity, "validity", pki.DefaultValidity, "How long the certificate is valid, such as 720h. It ends with the authority at the latest.")
	cmd.Flags().BoolVar(&d.force, "force", false, "If true, replace what is there.")
}

// authority reads the one that is to sign.
func (d *destination) authority() (*pki.Authority, error) {
	if d.validity <= 0 {
		return nil, fmt.Errorf("--validity: %s is over before it begins: give a time such as 8760h", d.validity)
	}
	a, err := pki.ReadAuthority(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot make a certificate: %w: --dir is the directory with %s and %s that picket pki init has made", err, pki.FileCA, pki.FileCAKey)
	} else if err != nil {
		return nil, fmt.Errorf("cannot make a certificate: %w", err)
	}
	return a, nil
}

// refused says what to do about files that are there.
func refused(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w, and is not replaced: give another --out, or --force to put a new key and certificate in its place", err)
	}
	return err
}

func newPKIHost(out io.Writer) *cobra.Command {
	var to destination
	var host pki.Host
	var addresses []string
	cmd := &cobra.Command{
		Use:                   "host NAME --address=ADDRESS[,ADDRESS] --dir=DIRECTORY --out=DIRECTORY [--door=true]",
		DisableFlagsInUseLine: true,
		Short:                 "Make the certificate of a host",
		Long: templates.LongDesc(`
			Make the certificate of a host, and put all that the host needs into a directory: ca.crt, host.crt, host.key and gossip.keys.
			They belong into /etc/picket/pki on that host and nowhere else. A host takes up new ones without a restart.

			NAME is the host's node.name, by default its hostname in lower case. The addresses are those that its API is reached under.

			Every host may speak for itself. A door may also change objects for the whole fleet, and pass on to other hosts what its users
			ask for: give --door=false to hosts that nobody talks to, and one that is stolen harms only itself.`),
		Example: templates.Examples(`
			# Make what host-01 needs
			picket pki host host-01 --address=10.0.0.1,host-01.lan --dir=fleet --out=hosts/host-01

			# A host that may change nothing elsewhere, for 30 days
			picket pki host kiosk-07 --address=10.0.7.7 --door=false --validity=720h --dir=fleet --out=hosts/kiosk-07

			# Renew a certificate
			picket pki host host-01 --address=10.0.0.1,host-01.lan --dir=fleet --out=hosts/host-01 --force`),
		Args: exactlyOneName, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			host.Node, host.Validity = args[0], to.validity
			for _, list := range addresses {
				host.Addresses = append(host.Addresses, strings.Split(list, ",")...)
			}
			if err := checkHost(host); err != nil {
				return err
			}
			return pkiHost(out, to, host, time.Now())
		},
	}
	to.addFlags(cmd)
	requireDirectory(cmd, &to.out, "out", "Directory for the host's files. It is made when it is not there.")
	// Not StringSliceVar: it reads CSV, and drops what follows a line break.
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "IP addresses and DNS names under which the host is reached, beside its name.")
	cmd.Flags().BoolVar(&host.Door, "door", true, "If true, the host may change objects for the fleet and pass on the calls of users.")
	require(cmd, "address")
	return cmd
}

func pkiHost(out io.Writer, to destination, host pki.Host, now time.Time) error {
	a, err := to.authority()
	if err != nil {
		return err
	}
	keys, err := pki.ReadGossipKeys(filepath.Join(to.dir, pki.FileGossipKeys))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot give host %s the gossip keys: %w: copy it back from %s of any host, or, when no host has one, make it with picket pki gossip-key --first --dir=%s", host.Node, err, hostPKI, to.dir)
	} else if err != nil {
		return fmt.Errorf("cannot give host %s the gossip keys: %w", host.Node, err)
	}
	pair, err := a.IssueHost(host, now)
	if err != nil {
		return err
	}
	leaf, err := pair.Leaf()
	if err != nil {
		return err
	}
	if err := (pki.HostKit{CA: a.TrustedPEM(), Pair: pair, Gossip: keys}).Write(to.out, to.force); err != nil {
		return refused(fmt.Errorf("cannot make the files of host %s: %w", host.Node, err))
	}
	kind := "a door: it may change objects for the fleet"
	if !host.Door {
		kind = "no door: it speaks for itself only"
	}
	_, err = fmt.Fprintf(out, `The files of host %q of fleet %q are in %s:
  %-12s the fleet's authorities
  %-12s %s; reached as %s; expires on %s
  %-12s SECRET: who has it is this host
  %-12s SECRET: encrypts gossip, the same on every host
Copy all four to %s on %s and nowhere else: owner root, the secret ones with mode 0600. Make new ones with --force before they expire.
`, host.Node, a.Name(), to.out, pki.FileCA, pki.FileHost, kind, names(leaf), expiry(leaf, a), pki.FileHostKey, pki.FileGossipKeys, hostPKI, host.Node)
	return err
}

func newPKIUser(out io.Writer) *cobra.Command {
	var to destination
	var role, server string
	cmd := &cobra.Command{
		Use:                   "user NAME --role=viewer|operator|admin --server=HOST:PORT --dir=DIRECTORY --out=FILE",
		DisableFlagsInUseLine: true,
		Short:                 "Make a kubeconfig for a user",
		Long: templates.LongDesc(`
			Make a kubeconfig with a certificate for a user. picket --kubeconfig and stock kubectl --kubeconfig take it.

			NAME is kept as the author of what the user changes. The roles, each of which may do what those before it may:

			 *  viewer: read everything but the data of Secrets, follow logs
			 *  operator: also restart, undo and pause rollouts, label and cordon hosts, delete pods
			 *  admin: also everything else: apply, exec, Secrets, delete hosts

			Any host that is a door answers for the whole fleet: --server names one. It must be among the addresses in that host's certificate.`),
		Example: templates.Examples(`
			# A kubeconfig for ana, who may do everything, and how she uses it
			picket pki user ana --role=admin --server=10.0.0.1:9746 --dir=fleet --out=ana.kubeconfig
			kubectl --kubeconfig=ana.kubeconfig get pods -o wide

			# One for a dashboard, for 30 days
			picket pki user dashboard --role=viewer --server=host-01.lan:9746 --validity=720h --dir=fleet --out=dashboard.kubeconfig`),
		Args: exactlyOneName, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			user := pki.User{Name: args[0], Validity: to.validity}
			var err error
			if user.Role, err = pki.ParseRole(role); err != nil {
				return fmt.Errorf("--role: %w", err)
			}
			if err := errors.Join(checkUser(user.Name), checkServer(server)); err != nil {
				return err
			}
			return pkiUser(out, to, user, role, server, time.Now())
		},
	}
	to.addFlags(cmd)
	cmd.Flags().StringVar(&to.out, "out", "", "File for the kubeconfig.")
	cmd.Flags().StringVar(&role, "role", "", "What the user may do: viewer, operator or admin.")
	cmd.Flags().StringVar(&server, "server", "", "Address and port of the API of a host.")
	require(cmd, "out", "role", "server")
	// Fails only for a flag that is not there.
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"viewer", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func pkiUser(out io.Writer, to destination, user pki.User, role, server string, now time.Time) error {
	a, err := to.authority()
	if err != nil {
		return err
	}
	pair, err := a.IssueUser(user, now)
	if err != nil {
		return err
	}
	leaf, err := pair.Leaf()
	if err != nil {
		return err
	}
	text := pki.Kubeconfig("https://"+server, a.TrustedPEM(), pair, a.Name(), user.Name)
	if err := pki.WriteSecret(to.out, text, to.force); err != nil {
		return refused(fmt.Errorf("cannot make the kubeconfig of %s: %w", user.Name, err))
	}
	_, err = fmt.Fprintf(out, `The kubeconfig of %s, %s of fleet %q, is %s. It talks to %s and expires on %s.
SECRET: it holds a key, and who has it is %s. Use it with picket --kubeconfig=FILE or kubectl --kubeconfig=FILE.
`, user.Name, role, a.Name(), to.out, server, expiry(leaf, a), user.Name)
	return err
}

// expiry tells the last day of a certificate, and when it is not the one that was asked for.
func expiry(leaf *x509.Certificate, a *pki.Authority) string {
	if leaf.NotAfter.Equal(a.Expiry()) {
		return day(leaf.NotAfter) + ", with the authority"
	}
	return day(leaf.NotAfter)
}

func names(leaf *x509.Certificate) string {
	all := leaf.DNSNames
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	return strings.Join(all, ", ")
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
