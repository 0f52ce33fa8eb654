package manifest

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// This file is the one place that says what becomes of every field of a DaemonSet. A test walks the API's types and fails when a
// field is missing here. To honour a field, move its name from a warned or refused rule to a list of honoured ones.

// verdict is what becomes of a field that is set.
type verdict string

const (
	// honoured: the field does here what it does in Kubernetes. That includes what Kubernetes itself sets or ignores.
	honoured verdict = "honoured"
	// warned: the pod runs without it; the rule's text says what happens instead.
	warned verdict = "warned"
	// refused: running without it would be wrong.
	refused verdict = "refused"
	// invalid in every DaemonSet: Kubernetes' own validation refuses it (validate.go).
	forbidden verdict = "forbidden"
)

// rule is the verdict on one field. Except for honoured, it covers all fields below as well.
type rule struct {
	verdict verdict
	text    string
	// below makes honoured cover all fields below, too.
	below bool
	// when narrows a warned or refused rule to some values; with others the field is honoured.
	when func(f set) bool
	// key narrows a rule about a map to some of its keys.
	key func(key string) bool
}

// set is a field that is set.
type set struct {
	value  any // without its pointer
	parent any // the struct it stands in
	pod    *corev1.PodSpec
}

// rules are keyed by the field's path with "[]" for any index: "spec.template.spec.containers[].image".
var rules = buildRules()

const (
	podPath       = "spec.template.spec"
	containerPath = podPath + ".containers[]"
	initPath      = podPath + ".initContainers[]"
)

func buildRules() map[string][]rule {
	t := table{}
	t.honour("", "apiVersion", "kind")
	t.subtree("status") // Kubernetes ignores it in what users write, too
	t.metadata()
	t.honour("spec", "minReadySeconds", "revisionHistoryLimit", "updateStrategy.type", "updateStrategy.rollingUpdate.maxUnavailable",
		"updateStrategy.rollingUpdate.maxSurge")
	t.subtree("spec.selector")
	t.pod()
	t.podSecurity(podPath + ".securityContext")
	for _, path := range []string{containerPath, initPath} {
		t.container(path)
		t.containerSecurity(path + ".securityContext")
	}
	t.restartPolicies()
	t.volumes(podPath + ".volumes[]")
	return t
}

type table map[string][]rule

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// honour lists leaves: a new field below a struct must not become honoured by itself.
func (t table) honour(path string, names ...string) {
	for _, name := range names {
		t.add(join(path, name), rule{verdict: honoured})
	}
}

// subtree honours a whole type whose meaning belongs to a Kubernetes library.
func (t table) subtree(paths ...string) {
	for _, path := range paths {
		t.add(path, rule{verdict: honoured, below: true})
	}
}

func (t table) warn(path, text string)   { t.add(path, rule{verdict: warned, text: text}) }
func (t table) refuse(path, text string) { t.add(path, rule{verdict: refused, text: text}) }

func (t table) add(path string, r rule) { t[path] = append(t[path], r) }

func (t table) metadata() {
	// The second line is set by the server; Kubernetes ignores it in what users write.
	t.honour("metadata", "name", "namespace", "labels", "annotations",
		"uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds")
	t.subtree("metadata.managedFields")
	t.add("metadata.generateName", rule{verdict: warned, text: "no name is generated here: metadata.name counts"})
	t.warn("metadata.finalizers", "there is no controller that would remove them: deletion does not wait for finalizers")
	t.warn("metadata.ownerReferences", "there is no garbage collector: deleting the owner does not delete this object")
	// A template's other metadata is ignored by Kubernetes as well.
	m := "spec.template.metadata"
	t.honour(m, "labels", "annotations", "name", "generateName", "namespace",
		"uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds")
	t.subtree(m+".managedFields", m+".ownerReferences")
	t.warn(m+".finalizers", "there is no controller that would remove them: a pod's deletion does not wait for finalizers")
}

func (t table) pod() {
	t.honour(podPath, "restartPolicy", "terminationGracePeriodSeconds", "dnsPolicy", "nodeSelector", "nodeName",
		"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostname", "subdomain",
		"setHostnameAsFQDN", "hostnameOverride",
		"dnsConfig.nameservers", "dnsConfig.searches", "dnsConfig.options[].name", "dnsConfig.options[].value",
		"imagePullSecrets[].name", "hostAliases[].ip", "hostAliases[].hostnames",
		"tolerations[].key", "tolerations[].operator", "tolerations[].value", "tolerations[].effect", "tolerations[].tolerationSeconds")
	t.subtree(podPath + ".affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution")
	t.placement()
	t.identity()
	t.add(podPath+".ephemeralContainers", rule{verdict: forbidden})
	t.add(podPath+".activeDeadlineSeconds", rule{verdict: forbidden})
	t.add(podPath+".hostUsers", rule{
		verdict: refused, when: is(false),
		text: "user namespaces are not supported: root in the container would be root on the host",
	})
	t.add(podPath+".os.name", rule{
		verdict: warned, text: "all hosts run Linux: the pod is placed nowhere",
		when: func(f set) bool { return f.value != corev1.Linux },
	})
	t.warn(podPath+".runtimeClassName", "there are no runtime classes: the containers run with runc")
	t.warn(podPath+".overhead", "it is reserved nowhere: there are no runtime classes")
	t.resources(podPath + ".resources")
	t.warn(podPath+".readinessGates", "nothing sets these conditions: the pod is ready when its containers are")
	t.warn(podPath+".evictionResponders", "pods are not evicted through the eviction API")
	t.refuse(podPath+".resourceClaims", "there is no dynamic resource allocation: the containers would lack their devices")
	t.refuse(podPath+".schedulingGates", "there is no scheduler and nobody to lift the gate: the pod would start at once")
}

// placement is what a scheduler would do.
func (t table) placement() {
	t.warn(podPath+".affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution",
		"a preference changes nothing: the pod runs on every host that is required")
	const others = "it does not depend on other pods where this one runs"
	t.warn(podPath+".affinity.podAffinity", others)
	t.warn(podPath+".affinity.podAntiAffinity", others)
	t.warn(podPath+".topologySpreadConstraints", others)
	t.warn(podPath+".schedulingGroup", others)
	t.add(podPath+".schedulerName", rule{
		verdict: warned, text: "there is no scheduler: every host decides for itself",
		when: func(f set) bool { return f.value != corev1.DefaultSchedulerName },
	})
	t.add(podPath+".priorityClassName", rule{
		verdict: warned, text: "nothing is preempted; only system-node-critical has an effect, on the order of out-of-memory kills",
		when: func(f set) bool { return f.value != "system-node-critical" },
	})
	t.warn(podPath+".priority", "nothing is preempted: a priority has no effect")
	t.warn(podPath+".preemptionPolicy", "nothing is preempted")
}

// identity is about service accounts: there is no API server of Kubernetes to log in to.
func (t table) identity() {
	const token = "there is no Kubernetes API to log in to: no token is mounted at /var/run/secrets/kubernetes.io/serviceaccount"
	t.add(podPath+".serviceAccountName", rule{
		verdict: warned, text: token,
		when: func(f set) bool { return f.value != "default" && mountsToken(f.pod) },
	})
	t.add(podPath+".serviceAccount", rule{
		verdict: warned, text: "this is the older name of serviceAccountName, which counts",
		when: func(f set) bool { return f.pod.ServiceAccountName != "" && f.value != f.pod.ServiceAccountName },
	})
	t.add(podPath+".serviceAccount", rule{
		verdict: warned, text: token,
		when: func(f set) bool {
			return f.pod.ServiceAccountName == "" && f.value != "default" && mountsToken(f.pod)
		},
	})
	t.add(podPath+".automountServiceAccountToken", rule{verdict: warned, text: token, when: is(true)})
	t.add(podPath+".enableServiceLinks", rule{verdict: warned, when: is(true), text: "there are no Services: no variables are set for them"})
}

func mountsToken(pod *corev1.PodSpec) bool {
	mount := pod.AutomountServiceAccountToken
	return mount == nil || *mount
}

func is(value any) func(set) bool {
	return func(f set) bool { return f.value == value }
}

func (t table) podSecurity(path string) {
	t.honour(path, "runAsUser", "runAsGroup", "runAsNonRoot", "supplementalGroups", "supplementalGroupsPolicy", "fsGroup", "sysctls[].name", "sysctls[].value",
		"fsGroupChangePolicy") // Kubernetes ignores the policy for the kinds of volumes that are supported here
	t.securityShared(path)
	t.warn(path+".seLinuxChangePolicy", "volumes are not relabelled")
}

func (t table) containerSecurity(path string) {
	t.honour(path, "runAsUser", "runAsGroup", "runAsNonRoot", "privileged", "allowPrivilegeEscalation", "readOnlyRootFilesystem", "procMount",
		"capabilities.add", "capabilities.drop")
	t.securityShared(path)
}

func (t table) securityShared(path string) {
	t.honour(path, "seLinuxOptions.user", "seLinuxOptions.role", "seLinuxOptions.type", "seLinuxOptions.level")
	t.honour(path, "seccompProfile.type", "seccompProfile.localhostProfile", "appArmorProfile.type", "appArmorProfile.localhostProfile")
	t.warn(path+".windowsOptions", "all hosts run Linux: options for Windows have no effect")
}

func (t table) container(path string) {
	t.honour(path, "name", "image", "imagePullPolicy", "command", "args", "workingDir", "stdin", "tty",
		"terminationMessagePath", "terminationMessagePolicy",
		"ports[].name", "ports[].hostPort", "ports[].containerPort", "ports[].protocol", "ports[].hostIP",
		"envFrom[].prefix", "envFrom[].configMapRef.name", "envFrom[].configMapRef.optional", "envFrom[].secretRef.name", "envFrom[].secretRef.optional",
		"env[].name", "env[].value", "env[].valueFrom.fieldRef.apiVersion", "env[].valueFrom.fieldRef.fieldPath",
		"env[].valueFrom.configMapKeyRef.name", "env[].valueFrom.configMapKeyRef.key", "env[].valueFrom.configMapKeyRef.optional",
		"env[].valueFrom.secretKeyRef.name", "env[].valueFrom.secretKeyRef.key", "env[].valueFrom.secretKeyRef.optional",
		"volumeMounts[].name", "volumeMounts[].mountPath", "volumeMounts[].readOnly", "volumeMounts[].recursiveReadOnly",
		"volumeMounts[].subPath", "volumeMounts[].subPathExpr", "volumeMounts[].mountPropagation",
		"volumeMounts[].bindMountOptions")
	t.honour(path+".env[].valueFrom.resourceFieldRef", "containerName", "resource", "divisor")
	t.resources(path + ".resources")
	t.refuse(path+".env[].valueFrom.fileKeyRef", "variables are not read from files: the container would start without this one")
	t.refuse(path+".volumeDevices", "there are no persistent volumes: the container would lack this device; mount it with hostPath")
	t.warn(path+".stdinOnce", "stdin stays open after the first attach")
	t.warn(path+".resizePolicy", "containers are not resized in place: a change of resources is an update")
	t.honour(path, "lifecycle.stopSignal")
	for _, hook := range []string{".lifecycle.postStart", ".lifecycle.preStop"} {
		t.handler(path + hook)
		t.honour(path+hook, "sleep.seconds")
		t.warn(path+hook+".tcpSocket", "Kubernetes does not support it either: the hook fails, and after a failed postStart the container is ended")
	}
	for _, name := range []string{".livenessProbe", ".readinessProbe", ".startupProbe"} {
		probe := path + name
		t.handler(probe)
		t.honour(probe, "tcpSocket.port", "tcpSocket.host")
		for _, port := range []string{".tcpSocket.port", ".httpGet.port"} {
			t.add(probe+port, rule{
				verdict: warned, when: isNoPort, text: "no container of the pod has a port of this name: the probe cannot be made, and the container is never found well",
			})
		}
		t.honour(probe, "grpc.port", "grpc.service", "grpc.mode", "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold",
			"terminationGracePeriodSeconds")
	}
}

// handler is what probes and hooks do.
func (t table) handler(path string) {
	t.honour(path, "exec.command", "httpGet.path", "httpGet.port", "httpGet.host", "httpGet.scheme",
		"httpGet.httpHeaders[].name", "httpGet.httpHeaders[].value", "httpGet.protocol")
}

// isNoPort says whether a port is named that the pod does not have.
func isNoPort(f set) bool {
	port := f.value.(intstr.IntOrString)
	return port.Type == intstr.String && !slices.ContainsFunc(slices.Concat(f.pod.InitContainers, f.pod.Containers), func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.StrVal })
	})
}

// restartPolicies: Always makes an init container a sidecar.
func (t table) restartPolicies() {
	const pods = "the pod's restartPolicy counts for all of its containers"
	t.refuse(containerPath+".restartPolicy", pods)
	t.add(initPath+".restartPolicy", rule{
		verdict: refused, text: "only Always is supported, which makes it a sidecar; without a restartPolicy it is started again until it succeeds",
		when: func(f set) bool { return f.value != corev1.ContainerRestartPolicyAlways },
	})
	for _, path := range []string{containerPath, initPath} {
		t.refuse(path+".restartPolicyRules", pods)
	}
}

func (t table) resources(path string) {
	t.refuse(path+".claims", "there is no dynamic resource allocation: the container would lack its device")
	for _, list := range []string{".limits", ".requests"} {
		t.add(path+list, rule{
			verdict: refused, text: "there are no device plugins, so no host has any of it; mount the device with hostPath",
			key: func(key string) bool { return !isNative(corev1.ResourceName(key)) },
		})
	}
}

// volumes honours the types that package pod lays out and refuses all others.
func (t table) volumes(path string) {
	t.honour(path, "name", "hostPath.path", "hostPath.type",
		"configMap.name", "configMap.optional", "configMap.defaultMode", "secret.secretName", "secret.optional", "secret.defaultMode",
		"downwardAPI.defaultMode", "projected.defaultMode",
		"configMap.defaultUser", "secret.defaultUser", "downwardAPI.defaultUser", "projected.defaultUser", "emptyDir.mode")
	t.items(path+".configMap.items[]", path+".secret.items[]")
	t.downwardItems(path + ".downwardAPI.items[]")
	t.add(path+".emptyDir.medium", rule{
		verdict: refused, text: "only the disk, Memory and HugePages are supported",
		when: func(f set) bool {
			medium := f.value.(corev1.StorageMedium)
			return medium != corev1.StorageMediumMemory && medium != corev1.StorageMediumHugePages &&
				!strings.HasPrefix(string(medium), string(corev1.StorageMediumHugePagesPrefix))
		},
	})
	t.add(path+".emptyDir.sizeLimit", rule{
		verdict: warned, text: "the huge pages of a volume are limited by the containers' own limits alone",
		when: func(f set) bool {
			medium := f.parent.(corev1.EmptyDirVolumeSource).Medium
			return medium != corev1.StorageMediumDefault && medium != corev1.StorageMediumMemory
		},
	})
	source := path + ".projected.sources[]"
	t.honour(source, "configMap.name", "configMap.optional", "secret.name", "secret.optional")
	t.items(source+".configMap.items[]", source+".secret.items[]")
	t.downwardItems(source + ".downwardAPI.items[]")
	t.warn(source+".serviceAccountToken", "there is no Kubernetes API to log in to: the token is left out of the volume")
	t.refuse(source+".clusterTrustBundle", "there are no ClusterTrustBundles: the file would be missing")
	t.refuse(source+".podCertificate", "there are no pod certificates: the file would be missing")
	for name, what := range unsupportedVolumes {
		t.refuse(path+"."+name, what+": the volume would be missing; mount it on the host and use hostPath")
	}
}

func (t table) items(paths ...string) {
	for _, path := range paths {
		t.honour(path, "key", "path", "mode", "user")
	}
}

func (t table) downwardItems(path string) {
	t.honour(path, "path", "mode", "user", "fieldRef.apiVersion", "fieldRef.fieldPath",
		"resourceFieldRef.containerName", "resourceFieldRef.resource", "resourceFieldRef.divisor")
}

var unsupportedVolumes = volumeTexts()

func volumeTexts() map[string]string {
	texts := map[string]string{
		"persistentVolumeClaim": "there are no persistent volumes", "ephemeral": "there are no persistent volumes",
		"csi": "there are no CSI drivers", "flexVolume": "there are no FlexVolume drivers",
		"image": "images are not mounted as volumes", "gitRepo": "git repositories are not cloned",
	}
	for name := range strings.FieldsSeq(`nfs iscsi glusterfs rbd cinder cephfs flocker fc azureFile azureDisk vsphereVolume quobyte
		photonPersistentDisk portworxVolume scaleIO storageos gcePersistentDisk awsElasticBlockStore`) {
		texts[name] = name + " volumes are not mounted"
	}
	return texts
}
