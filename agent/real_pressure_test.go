package agent

import (
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Real containers that outgrow their limits, one in a volume and one in its own file system, are evicted and made anew; what
// kubectl shows of it, and of the host, is what it shows in Kubernetes.
func TestRealEviction(t *testing.T) {
	h := newRealHost(t)
	h.start()
	limit := resource.MustParse("1Mi")
	volume := busyDaemon("volume", "busybox:1", "")
	volume.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{
		EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit},
	}}}
	c := &volume.Spec.Template.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	c.Command = []string{"sh", "-c", "head -c 3000000 /dev/zero > /scratch/file; sleep 1000"}
	layer := busyDaemon("layer", "busybox:1", "")
	c = &layer.Spec.Template.Spec.Containers[0]
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
	c.Command = []string{"sh", "-c", "head -c 3000000 /dev/zero > /file; sleep 1000"}
	sets := h.clientset().AppsV1().DaemonSets("default")
	for _, ds := range []string{"volume", "layer"} {
		object := volume
		if ds == "layer" {
			object = layer
		}
		if _, err := sets.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	k := h.kubectl()
	h.eventually("both are evicted and made anew", func() bool {
		events := k.Run("", "get", "events", "-o", `jsonpath={range .items[*]}{.reason} {.involvedObject.name} {.message}{"\n"}{end}`)
		return strings.Contains(events, `Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". `) &&
			strings.Contains(events, "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ") &&
			strings.Count(events, "FailedDaemonPod volume") >= 1 && strings.Count(events, "SuccessfulCreate volume") >= 2 &&
			strings.Count(events, "FailedDaemonPod layer") >= 1 && strings.Count(events, "SuccessfulCreate layer") >= 2
	})
	node := k.Run("", "describe", "node", "host-01")
	for _, line := range []string{
		`MemoryPressure +False .*KubeletHasSufficientMemory +kubelet has sufficient memory available`,
		`DiskPressure +False .*KubeletHasNoDiskPressure +kubelet has no disk pressure`,
		`PIDPressure +False .*KubeletHasSufficientPID +kubelet has sufficient PID available`,
		`Ready +True .*PicketReady`,
	} {
		if !regexp.MustCompile(line).MatchString(node) {
			t.Errorf("no line %s in\n%s", line, node)
		}
	}
}
