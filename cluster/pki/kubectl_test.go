package pki_test

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picketd/picket/agent/api"
	"github.com/picketd/picket/agent/api/apitest"
	"github.com/picketd/picket/cluster/pki"
)

// kubectl runs the stock one with nothing of this user's own.
func kubectl(t *testing.T, kubeconfig string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("no kubectl here")
	}
	cmd := exec.Command(path, append([]string{"--kubeconfig", kubeconfig, "--cache-dir", filepath.Join(t.TempDir(), "cache")}, args...)...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func writeKubeconfig(t *testing.T, server string, ca []byte, p pki.Pair, cluster, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, pki.Kubeconfig(server, ca, p, cluster, user), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKubectlReadsTheKubeconfig(t *testing.T) {
	for _, name := range []string{"prod", `a "quoted": name # with 'all'`, "multi\nline", "yes", "ünïcode\u2028"} {
		path := writeKubeconfig(t, "https://10.0.0.5:9746", []byte("ca pem"), pki.Pair{Cert: []byte("cert pem"), Key: []byte("key pem")}, name, "ana")
		out, err := kubectl(t, path, "config", "view", "--raw", "-o", "json")
		if err != nil {
			t.Errorf("%q: %v: %s", name, err, out)
			continue
		}
		var config struct {
			CurrentContext string `json:"current-context"`
			Contexts       []struct {
				Name    string
				Context struct{ Cluster, User string }
			}
			Clusters []struct {
				Name    string
				Cluster struct {
					Server string
					CA     []byte `json:"certificate-authority-data"`
				}
			}
			Users []struct {
				Name string
				User struct {
					Cert []byte `json:"client-certificate-data"`
					Key  []byte `json:"client-key-data"`
				}
			}
		}
		if err := json.Unmarshal([]byte(out), &config); err != nil {
			t.Fatal(err)
		}
		context, cluster, user := config.Contexts[0], config.Clusters[0], config.Users[0]
		if config.CurrentContext != "ana@"+name || context.Name != "ana@"+name || context.Context.Cluster != name || context.Context.User != "ana" ||
			cluster.Name != name || cluster.Cluster.Server != "https://10.0.0.5:9746" || string(cluster.Cluster.CA) != "ca pem" ||
			user.Name != "ana" || string(user.User.Cert) != "cert pem" || string(user.User.Key) != "key pem" {
			t.Errorf("%q: kubectl reads %s", name, out)
		}
	}
}

// The API's roles are those of our certificates: stock kubectl with each kubeconfig, against the real API server.
func TestRolesAtTheAPI(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	start, err := pki.FirstStart(dir, "prod", pki.Host{Node: "host-01", Door: true}, now)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := pki.ReadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	serving, err := pki.NewServing(dir, time.Now, func(err error) { t.Errorf("a report: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := apitest.StartOn(t, listener, apitest.NewAuthority(t), api.NewCache(apitest.Versions(1)), func(o *api.Options) { o.TLSConfig = serving.TLSConfig() })
	issued := func(p pki.Pair, err error) pki.Pair {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	user := func(role pki.Role) pki.Pair {
		return issued(authority.IssueUser(pki.User{Name: "ana", Role: role}, now))
	}
	const yes, no = true, false
	for name, c := range map[string]struct {
		pair                 pki.Pair
		read, restart, apply bool
	}{
		"viewer":              {user(pki.Viewer), yes, no, no},
		"operator":            {user(pki.Operator), yes, yes, no},
		"admin":               {user(pki.Admin), yes, yes, yes},
		"FirstStart's admin":  {start.Admin, yes, yes, yes},
		"a host":              {issued(authority.IssueHost(pki.Host{Node: "host-02", Door: true}, now)), no, no, no},
		"another fleet's":     {otherAdmin(t, now), no, no, no},
		"without certificate": {pki.Pair{}, no, no, no},
	} {
		kubeconfig := writeKubeconfig(t, server.URL, start.CA, c.pair, "prod", "ana")
		for _, try := range []struct {
			allowed bool
			args    []string
		}{
			{c.read, []string{"get", "daemonsets"}},
			{c.restart, []string{"auth", "can-i", "delete", "pods"}},
			{c.apply, []string{"auth", "can-i", "create", "configmaps"}},
		} {
			if out, err := kubectl(t, kubeconfig, try.args...); (err == nil) != try.allowed {
				t.Errorf("%s: kubectl %s: %v: %s", name, strings.Join(try.args, " "), err, out)
			}
		}
	}
}

func otherAdmin(t *testing.T, now time.Time) pki.Pair {
	t.Helper()
	other, err := pki.NewAuthority("prod", now)
	if err != nil {
		t.Fatal(err)
	}
	p, err := other.IssueUser(pki.User{Name: "ana", Role: pki.Admin}, now)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
