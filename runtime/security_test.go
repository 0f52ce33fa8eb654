package runtime_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/picketd/picket/runtime"
	"github.com/picketd/picket/runtime/runtimetest"
)

func id64(n int64) *int64 { return &n }

// Who the process is: the security context over the image's user, which may be a name; the image's groups are added.
func TestUser(t *testing.T) {
	h := newHost(t)
	p := h.newPod()
	for name, test := range map[string]struct {
		image string
		sec   runtime.Security
		want  string // "" is ErrConfig
	}{
		"root by default":            {"", runtime.Security{}, "uid=0(root) gid=0(root) groups=0(root),44(video)"},
		"by name":                    {"app", runtime.Security{}, "uid=1000(app) gid=2000(app) groups=29(audio),44(video),2000(app)"},
		"by number":                  {"1000", runtime.Security{}, "uid=1000(app) gid=2000(app) groups=29(audio),44(video),2000(app)"},
		"with group":                 {"app:www-data", runtime.Security{}, "uid=1000(app) gid=33(www-data) groups=29(audio),33(www-data),44(video)"},
		"unknown number":             {"4711", runtime.Security{}, "uid=4711 gid=0(root) groups=0(root)"},
		"unknown name":               {"nobodyknows", runtime.Security{}, ""},
		"unknown group":              {"app:nobodyknows", runtime.Security{}, ""},
		"runAsUser":                  {"app:www-data", runtime.Security{RunAsUser: id64(33)}, "uid=33(www-data) gid=33(www-data) groups=33(www-data)"},
		"runAsUser 0":                {"app", runtime.Security{RunAsUser: id64(0)}, "uid=0(root) gid=0(root) groups=0(root),44(video)"},
		"runAsGroup":                 {"app", runtime.Security{RunAsGroup: id64(5)}, "uid=1000(app) gid=5 groups=5,29(audio),44(video)"},
		"supplemental":               {"app", runtime.Security{SupplementalGroups: []int64{44, 7}}, "uid=1000(app) gid=2000(app) groups=7,29(audio),44(video),2000(app)"},
		"only these":                 {"app", runtime.Security{SupplementalGroups: []int64{7}, OnlyTheseGroups: true}, "uid=1000(app) gid=2000(app) groups=7,2000(app)"},
		"non-root, image is root":    {"", runtime.Security{RunAsNonRoot: true}, ""},
		"non-root, image has a name": {"app", runtime.Security{RunAsNonRoot: true}, ""},
		"non-root, image has a uid":  {"1000:0", runtime.Security{RunAsNonRoot: true}, "uid=1000(app) gid=0(root) groups=0(root),29(audio),44(video)"},
		"non-root, runAsUser":        {"", runtime.Security{RunAsNonRoot: true, RunAsUser: id64(1000)}, "uid=1000(app) gid=2000(app) groups=29(audio),44(video),2000(app)"},
		"non-root, runAsUser 0":      {"app", runtime.Security{RunAsNonRoot: true, RunAsUser: id64(0)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := *h
			h.t = t
			image := busybox
			if test.image != "" {
				image = "docker.io/library/user:" + strings.ReplaceAll(test.image, ":", ".")
				h.importImage(image, runtimetest.Image{Config: v1.Config{User: test.image}})
			}
			c := h.shell(p, "web", "id")
			c.Image, c.Security = image, test.sec
			c.LogPath += strings.ReplaceAll(name, " ", "-")
			if test.want == "" {
				want(t, h.CreateContainer(t.Context(), c), runtime.ErrConfig)
				return
			}
			if got := sortGroups(strings.TrimSpace(h.output(c))); got != sortGroups(test.want) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// sortGroups: their order means nothing.
func sortGroups(id string) string {
	before, groups, _ := strings.Cut(id, "groups=")
	list := strings.Split(groups, ",")
	slices.Sort(list)
	return before + "groups=" + strings.Join(list, ",")
}

// What the process may do, as the kernel says it.
func TestSecurity(t *testing.T) {
	h := newHost(t)
	p := h.newPod()
	const status = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t\\n' '  '"
	for name, test := range map[string]struct {
		sec    runtime.Security
		script string
		want   string
	}{
		"default": {
			runtime.Security{},
			status,
			"CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 0",
		},
		"add and drop": {
			runtime.Security{AddCapabilities: []string{"CAP_NET_ADMIN"}, DropCapabilities: []string{"CAP_CHOWN"}, NoNewPrivileges: true},
			status,
			"CapEff: 00000000a80435fa CapBnd: 00000000a80435fa NoNewPrivs: 1 Seccomp: 0",
		},
		"drop all": {
			runtime.Security{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"CAP_KILL"}},
			status,
			"CapEff: 0000000000000020 CapBnd: 0000000000000020 NoNewPrivs: 0 Seccomp: 0",
		},
		"not root": {
			runtime.Security{RunAsUser: id64(1000)},
			status,
			"CapEff: 0000000000000000 CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 0",
		},
		"add all": {
			runtime.Security{AddCapabilities: []string{"ALL"}},
			"grep CapEff /proc/self/status | tr '\\t' ' '",
			"CapEff: " + ownCapabilities(t),
		},
		"seccomp": {
			runtime.Security{Seccomp: seccomp.DefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})},
			status + "; unshare -U true 2>&1", // which a container without CAP_SYS_ADMIN may not
			"CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2 unshare: unshare(0x10000000): Operation not permitted",
		},
		"privileged": {
			runtime.Security{Privileged: true, Seccomp: nil},
			"grep CapEff /proc/self/status | tr '\\t' ' '",
			"CapEff: " + ownCapabilities(t),
		},
		"read-only root": {runtime.Security{ReadOnlyRootfs: true}, "touch /x 2>&1; touch /dev/shm/" + p.UID + " && echo shm; rm /dev/shm/" + p.UID, "touch: /x: Read-only file system\nshm"},
		"writable root":  {runtime.Security{}, "touch /x && echo yes", "yes"},
		"masked": {
			runtime.Security{},
			"wc -c </proc/timer_list; ls /sys/firmware | wc -l; echo x 2>&1 >/proc/sys/kernel/hostname; mount | grep -c ' /proc/[a-z-]* .*ro,'",
			"0\n0\nsh: can't create /proc/sys/kernel/hostname: Read-only file system\n5",
		},
		"unmasked":         {runtime.Security{UnmaskedProc: true}, "test $(wc -c </proc/timer_list) -gt 0 && echo open", "open"},
		"privileged masks": {runtime.Security{Privileged: true}, "test $(wc -c </proc/timer_list) -gt 0 && echo open; test -e /dev/kmsg && echo kmsg; mount | grep -E ' /sys(/fs/cgroup)? ' | grep -c '[(,]ro[,)]'", "open\nkmsg\n0"},
		"devices":          {runtime.Security{}, "ls /dev | grep -v core | tr '\\n' ' '", "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"},
		"new device":       {runtime.Security{}, "mknod /tmp/k c 1 11 && head -c1 /tmp/k 2>&1", "head: /tmp/k: Operation not permitted"},
	} {
		t.Run(name, func(t *testing.T) {
			h := *h
			h.t = t
			c := h.shell(p, "web", test.script+"; true")
			c.Security = test.sec
			c.LogPath += strings.ReplaceAll(name, " ", "-")
			if got := strings.TrimSpace(h.output(c)); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

// ownCapabilities is this process's CapEff: what "all" comes to.
func ownCapabilities(t *testing.T) string {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "CapEff:\t")
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

// The host has neither, and what only they could do is refused; the default is not.
func TestLocalSecurityModules(t *testing.T) {
	h := newHost(t)
	if _, err := os.Stat("/sys/kernel/security/apparmor"); err == nil {
		t.Skip("this host has AppArmor")
	}
	c := h.shell(h.newPod(), "web", "true")
	c.Security.AppArmorProfile = "mine"
	want(t, h.CreateContainer(t.Context(), c), runtime.ErrConfig)
	c.Security.Privileged = true
	want(t, h.CreateContainer(t.Context(), c), runtime.ErrConfig)
	c.Security = runtime.Security{AppArmorProfile: "unconfined", SELinux: &runtime.SELinux{Type: "spc_t"}}
	h.output(c)
}
