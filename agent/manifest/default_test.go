package manifest

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// The defaults that Kubernetes' API server shows for a DaemonSet that leaves everything out.
func TestDefaultsOfDaemonSet(t *testing.T) {
	text := strings.Replace(webYAML, "        image: busybox\n", `        image: busybox
        ports: [{containerPort: 80}]
        env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        resources: {limits: {cpu: 0.0001, memory: 1Gi}}
        livenessProbe: {httpGet: {port: 80}}
        readinessProbe: {grpc: {port: 80}}
        lifecycle: {preStop: {httpGet: {port: 80, path: /bye}}}
      serviceAccountName: robot
      hostNetwork: true
      volumes:
      - {name: a}
      - {name: b, hostPath: {path: /}}
      - {name: c, configMap: {name: x}}
      - {name: d, secret: {secretName: x}}
      - {name: e, downwardAPI: {items: [{path: x, fieldRef: {fieldPath: metadata.name}}]}}
      - {name: f, projected: {sources: [{serviceAccountToken: {path: x}}, {downwardAPI: {items: [{path: z, fieldRef: {fieldPath: metadata.name}}]}}]}}
`, 1)
	want := `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, namespace: default}
spec:
  revisionHistoryLimit: 10
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: busybox
        imagePullPolicy: Always
        terminationMessagePath: /dev/termination-log
        terminationMessagePolicy: File
        ports: [{containerPort: 80, protocol: TCP}]
        env: [{name: A, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}}]
        resources: {limits: {cpu: 1m, memory: 1Gi}}
        livenessProbe: {httpGet: {port: 80, path: /, scheme: HTTP}, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3}
        readinessProbe: {grpc: {port: 80, service: ""}, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3}
        lifecycle: {preStop: {httpGet: {port: 80, path: /bye, scheme: HTTP}}}
      restartPolicy: Always
      dnsPolicy: ClusterFirst
      schedulerName: default-scheduler
      securityContext: {}
      terminationGracePeriodSeconds: 30
      serviceAccountName: robot
      serviceAccount: robot
      hostNetwork: true
      volumes:
      - {name: a, emptyDir: {}}
      - {name: b, hostPath: {path: /, type: ""}}
      - {name: c, configMap: {name: x, defaultMode: 420}}
      - {name: d, secret: {secretName: x, defaultMode: 420}}
      - {name: e, downwardAPI: {defaultMode: 420, items: [{path: x, fieldRef: {apiVersion: v1, fieldPath: metadata.name}}]}}
      - name: f
        projected:
          defaultMode: 420
          sources:
          - serviceAccountToken: {path: x, expirationSeconds: 3600}
          - downwardAPI: {items: [{path: z, fieldRef: {apiVersion: v1, fieldPath: metadata.name}}]}
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1, maxSurge: 0}}
`
	ds := defaulted(decodeDaemonSet(t, text))
	ds.Annotations = nil
	body, err := Encode(ds)
	if err != nil {
		t.Fatal(err)
	}
	if got := canonical(t, body); got != canonical(t, []byte(want)) {
		t.Errorf("got\n%s\nwant\n%s", got, canonical(t, []byte(want)))
	}
}

// canonical writes YAML or JSON in one way.
func canonical(t *testing.T, text []byte) string {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDefaultPullPolicy(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0", 64)
	for image, want := range map[string]corev1.PullPolicy{
		"busybox": corev1.PullAlways, "busybox:latest": corev1.PullAlways, "reg.local:5000/x": corev1.PullAlways, "x:latest" + digest: corev1.PullAlways,
		"busybox:1.36": corev1.PullIfNotPresent, "reg.local:5000/x:v1": corev1.PullIfNotPresent, "busybox" + digest: corev1.PullIfNotPresent,
		"not a name": corev1.PullIfNotPresent,
	} {
		if got := pullPolicy(image); got != want {
			t.Errorf("%s: got %s, want %s", image, got, want)
		}
	}
}

func TestDefaultSecret(t *testing.T) {
	s := mustDecode(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: YQ==, b: Yg==}\nstringData: {b: new, c: c}\n").Objects[0].(*corev1.Secret)
	Default(s)
	if s.Type != corev1.SecretTypeOpaque || s.StringData != nil || string(s.Data["a"])+string(s.Data["b"])+string(s.Data["c"]) != "anewc" {
		t.Errorf("got %s %v %v", s.Type, s.Data, s.StringData)
	}
}

func TestDefaultNamespace(t *testing.T) {
	ns := &corev1.Namespace{}
	ns.Name = "prod"
	Default(ns)
	if ns.Labels["kubernetes.io/metadata.name"] != "prod" {
		t.Errorf("got %v", ns.Labels)
	}
}

// Requests and host ports are a pod's, not a template's: there they would stay when the limit or the port changes.
func TestDefaultPod(t *testing.T) {
	ds := defaulted(decodeDaemonSet(t, strings.Replace(webYAML, "image: busybox\n",
		"image: busybox\n        ports: [{containerPort: 80}]\n        resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 100m}}\n      hostNetwork: true\n", 1)))
	c := ds.Spec.Template.Spec.Containers[0]
	if len(c.Resources.Requests) != 1 || c.Ports[0].HostPort != 0 {
		t.Errorf("template: got %v %v", c.Resources.Requests, c.Ports)
	}
	pod := &corev1.Pod{Spec: *ds.Spec.Template.Spec.DeepCopy()}
	DefaultPod(pod)
	c = pod.Spec.Containers[0]
	if c.Resources.Requests.Memory().String() != "1Gi" || c.Resources.Requests.Cpu().String() != "100m" || c.Ports[0].HostPort != 80 {
		t.Errorf("pod: got %v %v", c.Resources.Requests, c.Ports)
	}
}

// What a pod with limits of its own does not request is what its containers request together, else its limit.
func TestDefaultPodRequests(t *testing.T) {
	ds := defaulted(decodeDaemonSet(t, with("        resources: {limits: {memory: 1Gi}}\n      resources: {limits: {cpu: 2, memory: 4Gi}}\n")))
	if r := ds.Spec.Template.Spec.Resources; r.Requests != nil {
		t.Errorf("template: %v", r.Requests)
	}
	pod := &corev1.Pod{Spec: *ds.Spec.Template.Spec.DeepCopy()}
	DefaultPod(pod)
	if r := pod.Spec.Resources.Requests; len(r) != 2 || r.Memory().String() != "1Gi" || r.Cpu().String() != "2" {
		t.Errorf("pod: %v", r)
	}
	pod.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	DefaultPod(pod)
	if r := pod.Spec.Resources.Requests; len(r) != 2 || r.Cpu().String() != "100m" {
		t.Errorf("with a request: %v", r)
	}
}

func TestDefaultIsIdempotent(t *testing.T) {
	for _, row := range corpusIndex(t) {
		for _, obj := range parse("x", corpusFile(t, row["local file"])).file.Objects {
			once := defaulted(obj)
			if twice := defaulted(once); !apiequality.Semantic.DeepEqual(once, twice) {
				t.Errorf("%s in %s changes", RefOf(obj), row["local file"])
			}
		}
	}
}
