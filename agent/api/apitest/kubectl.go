package apitest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// Kubectl runs kubectl in this process with one kubeconfig. Commands may run at the same time.
type Kubectl struct {
	t      testing.TB
	config string
	cache  string
}

// Kubectl returns a kubectl with a certificate for user in organizations.
func (h *Host) Kubectl(t testing.TB, user string, organizations ...string) *Kubectl {
	t.Helper()
	return NewKubectl(t, h.Kubeconfig(t, user, organizations...))
}

// NewKubectl returns a kubectl with a kubeconfig file.
func NewKubectl(t testing.TB, kubeconfig string) *Kubectl {
	return &Kubectl{t: t, config: kubeconfig, cache: t.TempDir()}
}

// Result is what a command printed and how it ended.
type Result struct {
	Out, Err string
	Code     int
}

// fatal is how kubectl's exit travels up the stack instead of ending the process.
type fatal struct {
	message string
	code    int
}

var catchFatal = sync.OnceFunc(func() {
	cmdutil.BehaviorOnFatal(func(message string, code int) { panic(fatal{message, code}) })
})

// Try runs a command. The argument "-" stands for a file with the manifest: kubectl reads the process's own stdin.
func (k *Kubectl) Try(manifest string, args ...string) Result {
	k.t.Helper()
	if i := slices.Index(args, "-"); i >= 0 {
		path := filepath.Join(k.t.TempDir(), "manifest.yaml")
		if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
			k.t.Fatal(err)
		}
		args = slices.Clone(args)
		args[i] = path
	}
	var out, errOut bytes.Buffer
	code := k.Stream(strings.NewReader(""), &out, &errOut, args...)
	return Result{Out: out.String(), Err: errOut.String(), Code: code}
}

// Stream runs a command on the caller's streams and returns its exit code.
func (k *Kubectl) Stream(in io.Reader, out, errOut io.Writer, args ...string) (code int) {
	catchFatal()
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(fatal)
			if !ok {
				panic(p)
			}
			code = f.code
			fmt.Fprintln(errOut, f.message)
		}
	}()
	all := append([]string{"kubectl", "--kubeconfig", k.config, "--cache-dir", k.cache}, args...)
	streams := genericiooptions.IOStreams{In: in, Out: out, ErrOut: errOut}
	command := cmd.NewKubectlCommand(cmd.KubectlOptions{
		Arguments:   all,
		ConfigFlags: genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50),
		IOStreams:   streams,
	})
	command.SetArgs(all[1:])
	command.SetIn(in)
	command.SetOut(out)
	command.SetErr(errOut)
	if err := command.Execute(); err != nil {
		fmt.Fprintln(errOut, err)
		return 1
	}
	return 0
}

// Run runs a command that must succeed and returns its output.
func (k *Kubectl) Run(manifest string, args ...string) string {
	k.t.Helper()
	r := k.Try(manifest, args...)
	if r.Code != 0 {
		k.t.Fatalf("kubectl %s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Out, r.Err)
	}
	return r.Out
}
