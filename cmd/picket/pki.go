package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/picketd/picket/cluster/pki"
)

// hostPKI is where a host looks for its files unless its api.pki says otherwise.
const hostPKI = "/etc/picket/pki"

// newPKICommand makes what an administrator hands out. It reads and writes the files it is given and talks to nobody.
func newPKICommand(streams genericiooptions.IOStreams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "Make the certificates and keys of a fleet",
		Long: templates.LongDesc(`
			Make the certificates and keys of a fleet.

			All of it happens in files, on the machine of whoever keeps the fleet's authority. No host is asked, and none needs to run.
			One directory, --dir, holds the authority; what hosts and users get goes elsewhere and is copied to them, by Ansible or by hand.

			A host that has no certificate, and joins no others, needs none of this: it makes an authority of its own.`),
		Example: templates.Examples(`
			# Make the authority of a fleet called prod
			picket pki init --dir=fleet --cluster=prod

			# Make what host-01 needs, and copy it there
			picket pki host host-01 --address=10.0.0.1,host-01.lan --dir=fleet --out=hosts/host-01
			scp hosts/host-01/* root@10.0.0.1:/etc/picket/pki/

			# Make a kubeconfig for ana, who may do everything
			picket pki user ana --role=admin --server=10.0.0.1:9746 --dir=fleet --out=ana.kubeconfig`),
		Run: cmdutil.DefaultSubCommandRun(streams.ErrOut),
	}
	cmd.AddCommand(newPKIInit(streams.Out), newPKIHost(streams.Out), newPKIUser(streams.Out), newPKIGossipKey(streams.Out))
	return cmd
}

func newPKIInit(out io.Writer) *cobra.Command {
	var dir, cluster string
	cmd := &cobra.Command{
		Use:                   "init --dir=DIRECTORY [--cluster=NAME]",
		DisableFlagsInUseLine: true,
		Short:                 "Make the authority of a fleet",
		Long: templates.LongDesc(`
			Make the authority of a fleet, and the first key for its gossip.

			The directory then holds ca.crt, ca.key and gossip.keys. Whoever has ca.key can be any host and any user: keep it on one machine
			that is no host, and keep a copy of the directory in a safe place. Without ca.key no host and no user can be added.
			An authority that is there is never replaced.`),
		Example: templates.Examples(`
			# Make the authority of a fleet called prod
			picket pki init --dir=fleet --cluster=prod`),
		Args: noArguments, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if errs := validation.IsDNS1123Label(cluster); len(errs) > 0 {
				return fmt.Errorf("--cluster: %q cannot be the name of a fleet: %s", cluster, strings.Join(errs, "; "))
			}
			return pkiInit(out, dir, cluster, time.Now())
		},
	}
	requireDirectory(cmd, &dir, "dir", "Directory to make the authority in. It is made when it is not there.")
	cmd.Flags().StringVar(&cluster, "cluster", "picket", "Name of the fleet, the cluster.name of its hosts.")
	return cmd
}

func pkiInit(out io.Writer, dir, cluster string, now time.Time) error {
	a, keys, err := pki.Init(dir, cluster, now)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("cannot make an authority: %w, and nothing is replaced: give a --dir where there is none", err)
	case err != nil:
		return fmt.Errorf("cannot make an authority: %w", err)
	}
	_, err = fmt.Fprintf(out, `The authority of fleet %q is in %s:
  %-12s for every host and user; expires on %s
  %-12s SECRET: who has it can be any host and any user. It never goes to a host; keep a copy in a safe place
  %-12s SECRET, for every host: encrypts gossip (key %s)
Its hosts have cluster.name: %s in /etc/picket/picketd.yaml. Next, for every one of them: picket pki host NAME --address=ADDRESS --dir=%s --out=DIRECTORY
`, a.Name(), dir, pki.FileCA, day(a.Expiry()), pki.FileCAKey, pki.FileGossipKeys, pki.Fingerprint(keys.Keys[0]), a.Name(), dir)
	return err
}

func newPKIGossipKey(out io.Writer) *cobra.Command {
	var dir string
	var first bool
	cmd := &cobra.Command{
		Use:                   "gossip-key --dir=DIRECTORY [--first]",
		DisableFlagsInUseLine: true,
		Short:                 "Add a key to those that encrypt gossip",
		Long: templates.LongDesc(`
			Add a key to those that encrypt gossip.

			gossip.keys holds one key a line: 32 bytes in base64. The first encrypts, all of them decrypt. Lines that begin with # are
			comments. Hosts take up a new file without a restart. A rotation takes three steps, and each must have reached every host, also those that are
			switched off now, before the next begins: a host that does not know the key the others encrypt with cannot hear them.

			 *  Add: this command puts a new key behind the others. Copy gossip.keys to every host.
			 *  Switch: move the new key's line, and its comment, to the top. Copy gossip.keys to every host.
			 *  Drop: remove the old key's line. Copy gossip.keys to every host.

			Give a host that slept through a step the present file before it is started: it is heard until its key is dropped, but hears
			the others only with the key they encrypt with. When a key may have leaked, do all three as soon as you can: until the last,
			who has it is heard.`),
		Example: templates.Examples(`
			# Begin a rotation
			picket pki gossip-key --dir=fleet

			# Make the first key of a fleet that did not encrypt its gossip
			picket pki gossip-key --dir=fleet --first`),
		Args: noArguments, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error { return pkiGossipKey(out, dir, first, time.Now()) },
	}
	requireDirectory(cmd, &dir, "dir", "Directory of the fleet's authority.")
	cmd.Flags().BoolVar(&first, "first", false, "If true, make gossip.keys for a fleet whose hosts have none.")
	return cmd
}

func pkiGossipKey(out io.Writer, dir string, first bool, now time.Time) error {
	add := pki.AddGossipKey
	if first {
		add = pki.FirstGossipKey
	}
	g, err := add(dir, now)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("cannot make a first gossip key: %w: leave --first away to add one to it", err)
	case errors.Is(err, fs.ErrNotExist) && !first:
		return fmt.Errorf("cannot add a gossip key: %w: copy it back from %s of any host, or, when no host has one, give --first", err, hostPKI)
	case err != nil:
		return fmt.Errorf("cannot add a gossip key: %w", err)
	}
	path, last := filepath.Join(dir, pki.FileGossipKeys), len(g.Keys)-1
	if _, err := fmt.Fprintf(out, "Key %s was added to %s, which is SECRET. Its keys now:\n", pki.Fingerprint(g.Keys[last]), path); err != nil {
		return err
	}
	for i, key := range g.Keys {
		use := "decrypts"
		if i == 0 {
			use = "encrypts and decrypts"
		}
		if _, err := fmt.Fprintf(out, "  %s  %s\n", pki.Fingerprint(key), use); err != nil {
			return err
		}
	}
	next := "When all have it, move the new key to the top and copy again; then remove the old one and copy again."
	if first {
		next = "A host with it and one without cannot hear each other: copy it to all at once."
	}
	_, err = fmt.Fprintf(out, "Copy it to %s of every host, owner root, mode 0600. %s\n", filepath.Join(hostPKI, pki.FileGossipKeys), next)
	return err
}
