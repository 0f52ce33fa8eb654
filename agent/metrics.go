package agent

import (
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/picketd/picket/agent/daemonset"
	"github.com/picketd/picket/runtime"
)

// MetricsSnapshot is what a scrape shows. It is read once by each collector and never changed after it was handed over.
type MetricsSnapshot struct {
	DaemonSets []*appsv1.DaemonSet // with their status
	Pods       []*corev1.Pod       // of this host
	Node       *corev1.Node        // this host; nil while it is not known

	ContainerdUp bool
	Images       int   // present in our containerd namespace
	ImageBytes   int64 // their size together

	ManifestErrors map[string]int    // file -> number of errors; 0 for a file that is fine
	Objects        map[string]int    // kind -> number of objects in the store
	Events         map[string]uint64 // reason -> events recorded since the start

	Certificates map[string]time.Time // which one -> when it ends
	Fleet        *FleetSnapshot       // nil while this host has not joined
}

// metrics are the agent's own numbers: what is counted while it runs, and, through a collector, what a snapshot says.
type metrics struct {
	planDuration prometheus.Histogram
	reloadErrors prometheus.Counter
	lastReload   prometheus.Gauge

	imagesRemoved, imageBytesFreed prometheus.Counter
}

// newMetrics registers everything with reg. read gives the present snapshot; it is called by many goroutines and must not
// block. It panics when reg already has metrics of these names.
func newMetrics(reg prometheus.Registerer, version string, read func() MetricsSnapshot) *metrics {
	m := &metrics{
		planDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "picket_plan_duration_seconds", Help: "Time that planning one DaemonSet and acting on the plan took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8), // 0.1 ms to 1.6 s
		}),
		reloadErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "picket_config_reload_errors_total", Help: "Configurations that were refused while the agent ran; the one before stayed.",
		}),
		lastReload: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "picket_config_last_reload_successful", Help: "Whether the configuration that was last read is the one in use.",
		}),
		imagesRemoved: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "picket_image_gc_removed_images_total", Help: "Image names removed because the disk was nearly full, or a pull needed the room.",
		}),
		imageBytesFreed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "picket_image_gc_freed_bytes_total", Help: "Bytes that the removal of images has freed.",
		}),
	}
	m.lastReload.Set(1)
	buildInfo := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "picket_build_info", Help: "The version of the agent; always 1.",
		ConstLabels: prometheus.Labels{"version": strings.ToValidUTF8(version, "?"), "goversion": goruntime.Version()},
	})
	buildInfo.Set(1)
	reg.MustRegister(m.planDuration, m.reloadErrors, m.lastReload, m.imagesRemoved, m.imageBytesFreed, buildInfo)
	reg.MustRegister(newSnapshotCollector(read), labelsCollector{read})
	return m
}

// planned notes how long a plan took.
func (m *metrics) planned(took time.Duration) { m.planDuration.Observe(took.Seconds()) }

// collected notes what a collection of images did.
func (m *metrics) collected(c runtime.ImageCollection) {
	m.imagesRemoved.Add(float64(len(c.Removed)))
	m.imageBytesFreed.Add(float64(c.Freed))
}

// reloaded notes that the configuration was read again, and whether it was taken.
func (m *metrics) reloaded(err error) {
	if err != nil {
		m.reloadErrors.Inc()
		m.lastReload.Set(0)
		return
	}
	m.lastReload.Set(1)
}

// snapshotCollector turns a snapshot into metrics.
type snapshotCollector struct {
	read func() MetricsSnapshot

	containerdUp, pods, restarts, images, imageBytes, manifestErrors, objects, events, expiry, blocked *prometheus.Desc
	kube                                                                                               kubeDescs
	fleet                                                                                              fleetDescs
}

func newSnapshotCollector(read func() MetricsSnapshot) *snapshotCollector {
	return &snapshotCollector{
		read:           read,
		containerdUp:   describe("picket_containerd_up", "Whether containerd answers."),
		pods:           describe("picket_pods", "Pods of this host by phase.", "phase"),
		restarts:       describe("picket_container_restarts_total", "Restarts of a container within its pod.", "namespace", "pod", "container", "daemonset"),
		images:         describe("picket_images", "Images in the agent's containerd namespace."),
		imageBytes:     describe("picket_image_bytes", "Size of the images in the agent's containerd namespace."),
		manifestErrors: describe("picket_manifest_errors", "Errors in a file of the manifests directory; while there are any its last good content holds.", "file"),
		objects:        describe("picket_objects", "Objects in the store by kind.", "kind"),
		events:         describe("picket_events_total", "Events recorded by this agent by reason.", "reason"),
		expiry:         describe("picket_certificate_expiry_timestamp_seconds", "When this host's certificate, and the authority it trusts, end. Alert when two weeks are left.", "certificate"),
		blocked: describe("picket_rollout_blocked", "Whether an update does not go on by itself, and why; the condition RolloutBlocked names the hosts."+fleetWide,
			"namespace", "daemonset", "reason"),
		kube:  newKubeDescs(),
		fleet: newFleetDescs(),
	}
}

// Describe names every metric; those of labels alone, whose label names are not known before, have a collector of their own.
func (c *snapshotCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.containerdUp, c.pods, c.restarts, c.images, c.imageBytes, c.manifestErrors, c.objects, c.events, c.expiry, c.blocked} {
		out <- d
	}
	c.kube.describe(out)
	c.fleet.describe(out)
}

// Collect reads one snapshot and sends what it says.
func (c *snapshotCollector) Collect(out chan<- prometheus.Metric) {
	s, send := c.read(), sender(out)
	send.gauge(c.containerdUp, truth(s.ContainerdUp))
	send.gauge(c.images, float64(s.Images))
	send.gauge(c.imageBytes, float64(s.ImageBytes))
	for file, n := range s.ManifestErrors {
		send.gauge(c.manifestErrors, float64(n), file)
	}
	for kind, n := range s.Objects {
		send.gauge(c.objects, float64(n), kind)
	}
	for reason, n := range s.Events {
		send.counter(c.events, float64(n), reason)
	}
	for certificate, end := range s.Certificates {
		send.gauge(c.expiry, float64(end.Unix()), certificate)
	}
	for _, ds := range s.DaemonSets {
		c.sendBlocked(send, ds)
	}
	phases := map[corev1.PodPhase]int{}
	for _, pod := range s.Pods {
		phases[pod.Status.Phase]++
		c.sendRestarts(send, pod)
	}
	for _, phase := range podPhases {
		send.gauge(c.pods, float64(phases[phase]), string(phase))
	}
	c.kube.send(send, s)
	c.fleet.send(send, s.Fleet)
}

func (c *snapshotCollector) sendBlocked(send sender, ds *appsv1.DaemonSet) {
	for _, reason := range daemonset.BlockedReasons {
		is := func(condition appsv1.DaemonSetCondition) bool {
			return condition.Type == daemonset.ConditionBlocked && condition.Status == corev1.ConditionTrue && condition.Reason == reason
		}
		send.gauge(c.blocked, truth(slices.ContainsFunc(ds.Status.Conditions, is)), ds.Namespace, ds.Name, reason)
	}
}

func (c *snapshotCollector) sendRestarts(send sender, pod *corev1.Pod) {
	daemonSet := ""
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil && owner.Kind == "DaemonSet" {
		daemonSet = owner.Name
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, status := range statuses {
			send.counter(c.restarts, float64(status.RestartCount), pod.Namespace, pod.Name, status.Name, daemonSet)
		}
	}
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// sender makes constant metrics. Label values may be anything (a file name, a taint of a hand-written config): what is no
// UTF-8 is replaced, because one bad value would otherwise fail the whole scrape.
type sender chan<- prometheus.Metric

func (s sender) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s.send(d, prometheus.GaugeValue, value, labels)
}

func (s sender) counter(d *prometheus.Desc, value float64, labels ...string) {
	s.send(d, prometheus.CounterValue, value, labels)
}

func (s sender) send(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels []string) {
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "?")
	}
	metric, err := prometheus.NewConstMetric(d, kind, value, labels...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(d, err)
	}
	s <- metric
}

// truth is how Prometheus writes a boolean.
func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
