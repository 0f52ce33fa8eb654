package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/picketd/picket/agent/manifest"
)

// Manifests that projects publish run unchanged: each is put into the manifests directory of one host in a throw-away machine, with
// stand-ins for its images, and what its containers are given is read from outside, from the kernel, and held against what the manifest
// says (real_given_test.go). What is made for a manifest is what its author says one must bring: labels of the node, ConfigMaps and
// Secrets that no file has.

// The corpus lies beside the repository.
const corpusDir = "../../shared/corpus"

// corpusAtOnce is how many manifests run at a time: most of the time they wait for the first probe.
const corpusAtOnce = "6"

// wontStart are the manifests that no API server would take, and why.
var wontStart = map[string]string{
	"xpumanager":     "a kustomize patch: it has neither selector nor labels nor a whole container; kubectl refuses it as well",
	"metadata-proxy": "hostNetwork stands there twice; kubectl refuses it as well (strict decoding)",
}

// corpusCase is one manifest of the corpus.
type corpusCase struct {
	name   string // of the file
	title  string // owner, repository and the end of the path there
	files  []string
	parsed manifest.File // of all files, as far as it was taken
	errs   manifest.Errors
	ds     *appsv1.DaemonSet // nil when the file was not taken
}

// readCorpus reads the manifests that need neither a Kubernetes API nor a kubelet to be of use.
func readCorpus(t *testing.T) (cases []*corpusCase) {
	index, err := os.ReadFile(filepath.Join(corpusDir, "INDEX.tsv"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the corpus of real manifests (%s) is not here", corpusDir)
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(index)), "\n")
	column := func(line, name string) string {
		return strings.Split(line, "\t")[slices.Index(strings.Split(lines[0], "\t"), name)]
	}
	for _, line := range lines[1:] {
		if column(line, "needs_api") == "yes" || column(line, "needs_kubelet") == "yes" {
			continue
		}
		c := &corpusCase{name: column(line, "local file"), files: []string{column(line, "local file")}}
		path := strings.Split(column(line, "path in repo"), "/")
		c.title = column(line, "owner/name") + " " + strings.Join(path[max(0, len(path)-3):], "/")
		c.files = append(c.files, strings.FieldsFunc(column(line, "companions"), func(r rune) bool { return strings.ContainsRune(" ,;", r) })...)
		c.read(t)
		cases = append(cases, c)
	}
	return cases
}

func (c *corpusCase) read(t *testing.T) {
	for _, name := range c.files {
		file, err := manifest.Decode(name, []byte(readFile(t, filepath.Join(corpusDir, name))))
		if errs := manifest.Errors(nil); errors.As(err, &errs) {
			c.errs = append(c.errs, errs...)
		}
		c.parsed.Objects = append(c.parsed.Objects, file.Objects...)
		c.parsed.Warnings = append(c.parsed.Warnings, file.Warnings...)
	}
	for _, obj := range c.parsed.Objects {
		if ds, ok := obj.(*appsv1.DaemonSet); ok && len(c.errs) == 0 {
			c.ds = ds
		}
	}
}

// corpusRow is a line of the table.
type corpusRow struct {
	title                             string
	honoured, warned, refused, checks int
	started                           bool
	took                              time.Duration
	remark                            string
}

func TestRealCorpus(t *testing.T) {
	if !inMachine(t, "-test.parallel", corpusAtOnce) {
		return
	}
	cases := readCorpus(t)
	h := newRealHost(t)
	h.cfg.Runtime.PodLogs, h.cfg.Runtime.ContainerLogs = "/var/log/pods", "/var/log/containers"
	if err := errors.Join(os.MkdirAll(h.cfg.Manifests, 0o755), shared.registry.WriteHosts(h.cfg.Runtime.HostsDir, "_default")); err != nil {
		t.Fatal(err)
	}
	pushStandIns(t, cases)
	h.start()
	rows := make([]corpusRow, len(cases))
	// Those that take longest come first.
	slices.SortStableFunc(cases, func(a, b *corpusCase) int { return cmp.Compare(b.patience(), a.patience()) })
	busy := newClaims()
	t.Run("manifests", func(t *testing.T) {
		for i, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				h.runCorpus(t, c, busy, &rows[i])
			})
		}
	})
	printCorpus(t, rows)
}

// runCorpus runs one manifest and takes it away again.
func (h *realHost) runCorpus(t *testing.T, c *corpusCase, busy *claims, row *corpusRow) {
	*row = corpusRow{title: c.title, honoured: honouredFields(c), warned: len(c.parsed.Warnings), refused: len(c.errs)}
	for part, why := range wontStart {
		if strings.Contains(c.name, part) {
			row.remark = why
			if len(c.errs) == 0 {
				t.Errorf("it was taken, although: %s", why)
			}
			return
		}
	}
	if c.ds == nil {
		row.remark = c.errs.Error()
		t.Fatalf("refused: %v", c.errs)
	}
	defer busy.hold(c.needs()...)()
	run := &corpusRun{realHost: h.in(t), corpusCase: c, t: t, client: h.clientset()}
	defer func() { row.started = !t.Failed() }()
	defer run.end()
	began := time.Now()
	run.apply()
	run.start()
	row.took = time.Since(began)
	row.checks = run.look()
}

// in is the host for a subtest.
func (h *realHost) in(t *testing.T) *realHost {
	sub := *h
	sub.t = t
	return &sub
}

// patience is the longest delay before a probe that the start waits for.
func (c *corpusCase) patience() (seconds int32) {
	if c.ds == nil {
		return 0
	}
	for _, container := range c.ds.Spec.Template.Spec.Containers {
		for _, p := range []*corev1.Probe{container.ReadinessProbe, container.StartupProbe} {
			if p != nil {
				seconds = max(seconds, p.InitialDelaySeconds)
			}
		}
	}
	return seconds
}

// needs are what only one manifest at a time can have: names of objects, ports of the host, labels of the node.
func (c *corpusCase) needs() (list []string) {
	for _, obj := range c.parsed.Objects {
		list = append(list, manifest.RefOf(obj).String())
	}
	for key := range nodeLabels(c.ds) {
		list = append(list, "label "+key)
	}
	spec := c.ds.Spec.Template.Spec
	for _, container := range spec.Containers {
		for port := range standInPorts(&container) {
			if spec.HostNetwork || slices.ContainsFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.HostPort == port }) {
				list = append(list, fmt.Sprint("port ", port))
			}
		}
	}
	return list
}

// claims let several goroutines have things that only one can have.
type claims struct {
	mu    sync.Mutex
	freed *sync.Cond
	held  map[string]bool
}

func newClaims() *claims {
	c := &claims{held: map[string]bool{}}
	c.freed = sync.NewCond(&c.mu)
	return c
}

// hold waits until all are free and takes them, until release is called.
func (c *claims) hold(names ...string) (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for slices.ContainsFunc(names, func(n string) bool { return c.held[n] }) {
		c.freed.Wait()
	}
	for _, n := range names {
		c.held[n] = true
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, n := range names {
			delete(c.held, n)
		}
		c.freed.Broadcast()
	}
}

func printCorpus(t *testing.T, rows []corpusRow) {
	slices.SortFunc(rows, func(a, b corpusRow) int { return cmp.Compare(a.title, b.title) })
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "manifest\thonoured\twarned\trefused\tstarted\tafter\tchecked\t")
	started, checks := 0, 0
	for _, r := range rows {
		yes := "no"
		if r.started {
			yes, started = "yes", started+1
		}
		checks += r.checks
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t", r.title, r.honoured, r.warned, r.refused, yes)
		fmt.Fprintf(w, "%s\t%d\t%s\n", r.took.Round(100*time.Millisecond), r.checks, r.remark)
	}
	w.Flush()
	percent := 100 * float64(started) / float64(len(rows))
	t.Logf("%d of %d manifests started and were given what they ask for (%.1f %%); %d facts checked\n%s", started, len(rows), percent, checks, out.String())
	if percent < 95 {
		t.Errorf("only %.1f %% started", percent)
	}
}
