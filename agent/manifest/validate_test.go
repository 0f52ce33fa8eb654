package manifest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// with puts lines into the DaemonSet web: container fields (8 spaces), pod fields (6) or spec fields (2).
func with(lines string) string { return webYAML + lines }

// invalidDaemonSets are refused with exactly these errors, in Kubernetes' words except where "Ours" is said.
var invalidDaemonSets = []struct {
	name, text string
	want       []string
}{
	{"name", strings.Replace(webYAML, "name: web\nspec", "name: Web_1\nspec", 1), []string{"metadata.name: Invalid value: \"Web_1\": a lowercase RFC 1123 subdomain"}},
	{"namespace", strings.Replace(webYAML, "name: web\nspec", "name: web\n  namespace: a.b\nspec", 1), []string{"metadata.namespace: Invalid value: \"a.b\": must not contain dots"}},
	{"label", strings.Replace(webYAML, "labels: {app: web}", "labels: {app: web, \"-\": x}", 1), []string{`spec.template.metadata.labels: Invalid value: "-": name part must consist`}},
	{"empty selector", strings.Replace(webYAML, "    matchLabels: {app: web}\n", "    matchLabels: {}\n", 1), []string{"spec.selector: Invalid value: {}: empty selector is invalid for daemonset"}},
	{"selector does not match", strings.Replace(webYAML, "labels: {app: web}", "labels: {app: x}", 1), []string{"spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`"}},
	{"selector operator", strings.Replace(webYAML, "matchLabels: {app: web}", "matchExpressions: [{key: app, operator: Like, values: [w]}]", 1), []string{
		`spec.selector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator`, `spec.selector: Invalid value`,
	}},
	{"restart policy", with("      restartPolicy: OnFailure\n"), []string{`spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always"`}},
	{"deadline", with("      activeDeadlineSeconds: 5\n"), []string{"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported"}},
	{"ephemeral containers", with("      ephemeralContainers: [{name: d, image: x}]\n"), []string{"spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template"}},
	{"negative numbers", with("  minReadySeconds: -1\n  revisionHistoryLimit: -2\n"), []string{
		"spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0", "spec.revisionHistoryLimit: Invalid value: -2: must be greater than or equal to 0",
	}},
	{"strategy", with("  updateStrategy: {type: Recreate}\n"), []string{`spec.updateStrategy.type: Unsupported value: "Recreate": supported values: "RollingUpdate", "OnDelete"`}},
	{"both budgets zero", with("  updateStrategy: {rollingUpdate: {maxUnavailable: 0}}\n"), []string{"spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"}},
	{"both budgets set", with("  updateStrategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 10%}}\n"), []string{`spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "10%": may not be set when maxUnavailable is non-zero`}},
	{"budget over 100%", with("  updateStrategy: {rollingUpdate: {maxUnavailable: 101%}}\n"), []string{`spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`}},
	{"budget is no percentage", with("  updateStrategy: {rollingUpdate: {maxUnavailable: many}}\n"), []string{
		`spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "many": a valid percent string`, "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value",
	}},
	{"budget negative", with("  updateStrategy: {rollingUpdate: {maxUnavailable: -1}}\n"), []string{"spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: -1: must be greater than or equal to 0"}},
	{"Ours: surge with a host port", with("        ports: [{containerPort: 80, hostPort: 80}]\n  updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\n"), []string{
		"spec.template.spec.containers[0].ports[0].hostPort: Forbidden: the host's port 80 cannot be bound twice",
	}},
	{"Ours: surge on the host's network", with("        ports: [{containerPort: 80}]\n      hostNetwork: true\n  updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\n"), []string{
		"spec.template.spec.containers[0].ports[0].containerPort: Forbidden: the host's port 80 cannot be bound twice",
	}},
	{"no containers", strings.Replace(webYAML, "      containers:\n      - name: web\n        image: busybox\n", "      hostNetwork: true\n", 1), []string{"spec.template.spec.containers: Required value"}},
	{"no image", strings.Replace(webYAML, "        image: busybox\n", "", 1), []string{"spec.template.spec.containers[0].image: Required value"}},
	{"container names", with("      - {name: web, image: x}\n      - {name: A, image: \" x\"}\n      - {image: x}\n"), []string{
		`spec.template.spec.containers[1].name: Duplicate value: "web"`, `spec.template.spec.containers[2].name: Invalid value: "A": a lowercase RFC 1123 label`,
		`spec.template.spec.containers[2].image: Invalid value: " x": must not have leading or trailing whitespace`, `spec.template.spec.containers[3].name: Required value`,
	}},
	{"enumerations of a container", with("        imagePullPolicy: Sometimes\n        terminationMessagePolicy: Mail\n"), []string{
		`spec.template.spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"`,
		`spec.template.spec.containers[0].terminationMessagePolicy: Unsupported value: "Mail": supported values: "File", "FallbackToLogsOnError"`,
	}},
	{"ports", with("        ports: [{containerPort: 0}, {containerPort: 70000}, {containerPort: 1, protocol: ICMP}, {containerPort: 2, name: a}, {containerPort: 3, name: a}, {containerPort: 4, name: a_b}, {containerPort: 5, hostPort: 5, hostIP: here}]\n"), []string{
		"spec.template.spec.containers[0].ports[0].containerPort: Required value",
		"spec.template.spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
		`spec.template.spec.containers[0].ports[2].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"`,
		`spec.template.spec.containers[0].ports[4].name: Duplicate value: "a"`, `spec.template.spec.containers[0].ports[5].name: Invalid value: "a_b"`,
		`spec.template.spec.containers[0].ports[6].hostIP: Invalid value: "here": must be a valid IP address`,
	}},
	{"host ports", with("        ports: [{containerPort: 80, hostPort: 80}, {containerPort: 81, hostPort: 80}, {containerPort: 82, hostPort: 80, protocol: UDP}]\n"), []string{
		`spec.template.spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80"`,
	}},
	{"host port of a sidecar", with("        ports: [{containerPort: 80, hostPort: 80}]\n      initContainers: [{name: i, image: x, ports: [{containerPort: 80, hostPort: 80}]}, {name: s, image: x, restartPolicy: Always, ports: [{containerPort: 81, hostPort: 80}]}]\n"), []string{
		`spec.template.spec.containers[0].ports[0].hostPort: Duplicate value: "TCP//80"`,
	}},
	{"host port on the host's network", with("        ports: [{containerPort: 80, hostPort: 81}]\n      hostNetwork: true\n"), []string{
		"spec.template.spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
	}},
	{"env", with("        env: [{value: x}, {name: \"a=b\"}, {name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: B, valueFrom: {}}, " +
		"{name: C, valueFrom: {fieldRef: {fieldPath: spec.hostname}}}, {name: D, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['a/b/c']\"}}}, " +
		"{name: E, valueFrom: {secretKeyRef: {name: s, key: a/b}}}, {name: F, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 2}}}, " +
		"{name: G, valueFrom: {resourceFieldRef: {resource: disk}}}, {name: H, valueFrom: {configMapKeyRef: {key: a}}}]\n        envFrom: [{}, {prefix: \"=\", configMapRef: {name: x}}, {secretRef: {}}]\n"), []string{
		"spec.template.spec.containers[0].env[0].name: Required value",
		`spec.template.spec.containers[0].env[1].name: Invalid value: "a=b": a valid environment variable name`,
		"spec.template.spec.containers[0].env[2].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
		"spec.template.spec.containers[0].env[3].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`",
		`spec.template.spec.containers[0].env[4].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.hostname"`,
		`spec.template.spec.containers[0].env[5].valueFrom.fieldRef.fieldPath: Invalid value: "a/b/c"`,
		`spec.template.spec.containers[0].env[6].valueFrom.secretKeyRef.key: Invalid value: "a/b": a valid config key`,
		`spec.template.spec.containers[0].env[7].valueFrom.resourceFieldRef.divisor: Invalid value: "2": only divisor's values 1m and 1 are supported with the cpu resource`,
		`spec.template.spec.containers[0].env[8].valueFrom.resourceFieldRef.resource: Unsupported value: "disk"`,
		`spec.template.spec.containers[0].env[9].valueFrom.configMapKeyRef.name: Required value`,
		"spec.template.spec.containers[0].envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
		`spec.template.spec.containers[0].envFrom[1].prefix: Invalid value: "="`, `spec.template.spec.containers[0].envFrom[2].secretRef.name: Required value`,
	}},
	{"mounts", with("        volumeMounts: [{name: gone, mountPath: /a}, {name: v, mountPath: /a}, {name: v}, {name: v, mountPath: /b, subPath: /abs}, {name: v, mountPath: /c, subPath: a/../b}, " +
		"{name: v, mountPath: /d, subPath: a, subPathExpr: b}, {name: v, mountPath: /e, mountPropagation: Bidirectional}, {name: v, mountPath: /f, recursiveReadOnly: Enabled}, {name: v, mountPath: /g, bindMountOptions: [noexec, ro, noexec]}]\n      volumes: [{name: v}]\n"), []string{
		`spec.template.spec.containers[0].volumeMounts[0].name: Not found: "gone"`, `spec.template.spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique`,
		`spec.template.spec.containers[0].volumeMounts[2].mountPath: Required value`, `spec.template.spec.containers[0].volumeMounts[3].subPath: Invalid value: "/abs": must be a relative path`,
		`spec.template.spec.containers[0].volumeMounts[4].subPath: Invalid value: "a/../b": must not contain '..'`,
		`spec.template.spec.containers[0].volumeMounts[5].subPathExpr: Invalid value: "b": subPathExpr and subPath are mutually exclusive`,
		`spec.template.spec.containers[0].volumeMounts[6].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers`,
		`spec.template.spec.containers[0].volumeMounts[7].recursiveReadOnly: Forbidden: may only be specified when readOnly is true`,
		`spec.template.spec.containers[0].volumeMounts[8].bindMountOptions[1]: Unsupported value: "ro"`,
		`spec.template.spec.containers[0].volumeMounts[8].bindMountOptions[2]: Duplicate value: "noexec"`,
	}},
	{"volumes", with("      volumes: [{name: a}, {name: a}, {name: B}, {}, {name: c, hostPath: {path: rel/..}}, {name: d, hostPath: {path: /, type: Dir}}, {name: e, configMap: {defaultMode: 999}}, " +
		"{name: f, secret: {secretName: x, items: [{key: k, path: ../x}, {path: /abs}]}}, {name: g, emptyDir: {}, hostPath: {path: /}}, {name: h, downwardAPI: {items: [{path: x}]}}, " +
		"{name: i, projected: {sources: [{configMap: {name: a, items: [{key: k, path: p}]}}, {secret: {name: b, items: [{key: k, path: p}]}}, {}]}}, " +
		"{name: j, emptyDir: {mode: 1024}}, {name: k, secret: {secretName: x, defaultUser: -1, items: [{key: k, path: x, user: -2}]}}]\n"), []string{
		`spec.template.spec.volumes[1].name: Duplicate value: "a"`, `spec.template.spec.volumes[2].name: Invalid value: "B"`, `spec.template.spec.volumes[3].name: Required value`,
		`spec.template.spec.volumes[4].hostPath.path: Invalid value: "rel/..": must not contain '..'`, `spec.template.spec.volumes[4].hostPath.path: Invalid value: "rel/..": must be an absolute path`,
		`spec.template.spec.volumes[5].hostPath.type: Unsupported value: "Dir"`, `spec.template.spec.volumes[6].configMap.name: Required value`,
		`spec.template.spec.volumes[6].configMap.defaultMode: Invalid value: 999: must be a number between 0 and 0777 (octal), both inclusive`,
		`spec.template.spec.volumes[7].secret.items[0].path: Invalid value: "../x": must not contain '..'`, `spec.template.spec.volumes[7].secret.items[1].key: Required value`,
		`spec.template.spec.volumes[7].secret.items[1].path: Invalid value: "/abs": must be a relative path`, `spec.template.spec.volumes[8].emptyDir: Forbidden: may not specify more than 1 volume type`,
		`spec.template.spec.volumes[9].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required`,
		`spec.template.spec.volumes[10].projected.sources[1].secret.items: Invalid value: "p": conflicting duplicate paths`,
		`spec.template.spec.volumes[10].projected.sources[2]: Forbidden: must specify exactly 1 volume type, not 0`,
		`spec.template.spec.volumes[11].emptyDir.mode: Invalid value: 1024: must be a number between 0 and 01777 (octal), both inclusive`,
		`spec.template.spec.volumes[12].secret.defaultUser: Invalid value: -1`, `spec.template.spec.volumes[12].secret.items[0].user: Invalid value: -2`,
	}},
	{"host name", with("      hostNetwork: true\n      setHostnameAsFQDN: true\n      hostnameOverride: A" + strings.Repeat("a", 64) + "\n"), []string{
		"spec.template.spec.hostnameOverride: Invalid value", "spec.template.spec.hostnameOverride: Too long: may not be more than 64 bytes",
		"spec.template.spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
		"spec.template.spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
	}},
	{"pod resources", with("        resources: {limits: {cpu: 2}, requests: {cpu: 700m}}\n      resources: {limits: {cpu: 1, ephemeral-storage: 1Gi}, requests: {cpu: 500m, memory: 1Gi}}\n"), []string{
		`spec.template.spec.resources.limits[ephemeral-storage]: Unsupported value: "ephemeral-storage"`,
		`spec.template.spec.resources.requests[cpu]: Invalid value: "500m": must be greater than or equal to aggregate container requests of 700m`,
		`spec.template.spec.resources.limits[cpu]: Invalid value: "1": must be greater than or equal to the limit of container web, 2`,
	}},
	{"resources", with("        resources: {limits: {cpu: 1, memory: -1, gpu: 1, example.com/x: 500m}, requests: {cpu: 2, hugepages-2Mi: 2Mi}}\n"), []string{
		`spec.template.spec.containers[0].resources.limits[example.com/x]: Invalid value: "500m": must be an integer`,
		`spec.template.spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource for containers`,
		`spec.template.spec.containers[0].resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0`,
		`spec.template.spec.containers[0].resources.requests[hugepages-2Mi]: Required value: Limit must be set for non overcommitable resources`,
		`spec.template.spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`,
		`spec.template.spec.containers[0].resources.limits[example.com/x]: Forbidden: picket cannot do this: there are no device plugins`,
	}},
	{"probes", with("        livenessProbe: {exec: {command: [x]}, successThreshold: 2, timeoutSeconds: -1, terminationGracePeriodSeconds: 0}\n        readinessProbe: {terminationGracePeriodSeconds: 5, tcpSocket: {port: 0}}\n" +
		"        startupProbe: {exec: {}, httpGet: {port: 1}}\n        lifecycle: {preStop: {httpGet: {port: a_b, scheme: FTP}}, postStart: {}, stopSignal: SIGFOO}\n"), []string{
		"spec.template.spec.containers[0].lifecycle.postStart: Required value: must specify a handler type",
		`spec.template.spec.containers[0].lifecycle.preStop.httpGet.port: Invalid value: "a_b"`, `spec.template.spec.containers[0].lifecycle.preStop.httpGet.scheme: Unsupported value: "FTP"`,
		`spec.template.spec.containers[0].lifecycle.stopSignal: Invalid value: "SIGFOO": must be the name of a signal`,
		"spec.template.spec.containers[0].livenessProbe.timeoutSeconds: Invalid value: -1", "spec.template.spec.containers[0].livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
		"spec.template.spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive", "spec.template.spec.containers[0].startupProbe.exec.command: Required value",
		"spec.template.spec.containers[0].startupProbe.httpGet: Forbidden: may not specify more than 1 handler type", "spec.template.spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
		"spec.template.spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
	}},
	{"hooks of plain init containers", with("      initContainers: [{name: i, image: x, lifecycle: {preStop: {sleep: {seconds: 1}}}}, {name: s, image: x, restartPolicy: Always, lifecycle: {preStop: {sleep: {seconds: 1}}}}]\n"), []string{
		"spec.template.spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
	}},
	{"init containers that are no sidecars", with("      initContainers: [{name: i, image: x, restartPolicy: OnFailure}]\n"), []string{
		"spec.template.spec.initContainers[0].restartPolicy: Forbidden: picket cannot do this",
	}},
	{"security", with("        securityContext: {privileged: true, allowPrivilegeEscalation: false, runAsUser: -1, procMount: Half, seccompProfile: {type: Localhost}, appArmorProfile: {type: Unconfined, localhostProfile: x}}\n"), []string{
		"spec.template.spec.containers[0].securityContext.runAsUser: Invalid value: -1", `spec.template.spec.containers[0].securityContext.procMount: Unsupported value: "Half"`,
		"spec.template.spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
		`spec.template.spec.containers[0].securityContext.appArmorProfile.localhostProfile: Invalid value: "x": can only be set when AppArmor type is Localhost`,
		"spec.template.spec.containers[0].securityContext: Invalid value: \"\": cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
	}},
	{"pod security", with("      hostNetwork: true\n      hostPID: true\n      shareProcessNamespace: true\n      securityContext: {fsGroup: -1, supplementalGroups: [-5], sysctls: [{name: net.ipv4.ip_forward, value: \"1\"}, {name: vm.swappiness, value: \"1\"}, {name: kernel.shmmax, value: \"1\"}, {name: kernel.shmmax, value: \"1\"}]}\n"), []string{
		"spec.template.spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
		"spec.template.spec.securityContext.fsGroup: Invalid value: -1", "spec.template.spec.securityContext.supplementalGroups[0]: Invalid value: -5",
		`spec.template.spec.securityContext.sysctls[0].name: Invalid value: "net.ipv4.ip_forward": may not be specified when 'hostNetwork' is true`,
		"spec.template.spec.securityContext.sysctls[1].name: Forbidden: is not namespaced", `spec.template.spec.securityContext.sysctls[3].name: Duplicate value: "kernel.shmmax"`,
	}},
	{"tolerations", with("      tolerations: [{operator: Exists}, {key: a, operator: Exists, value: x}, {operator: Equal}, {key: a, effect: NoSchedule, tolerationSeconds: 5}, {key: a, operator: Like}, {key: a, effect: Never}, {key: \"a b\"}]\n"), []string{
		`spec.template.spec.tolerations[1].operator: Invalid value: "x": value must be empty when`, `spec.template.spec.tolerations[2].operator: Invalid value: "Equal": operator must be Exists when`,
		`spec.template.spec.tolerations[3].effect: Invalid value: "NoSchedule": effect must be 'NoExecute' when`, `spec.template.spec.tolerations[4].operator: Unsupported value: "Like"`,
		`spec.template.spec.tolerations[5].effect: Unsupported value: "Never"`, `spec.template.spec.tolerations[6].key: Invalid value: "a b"`,
	}},
	{"node affinity", with("      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}, {key: a, operator: Exists, values: [x]}, {key: a, operator: Gt}, {key: a, operator: Like}]}, {matchFields: [{key: metadata.uid, operator: In, values: [x]}, {key: metadata.name, operator: Exists}]}]}}}\n"), []string{
		"matchExpressions[0].values: Required value", "matchExpressions[1].values: Forbidden", "matchExpressions[2].values: Required value", `matchExpressions[3].operator: Invalid value: "Like"`,
		`matchFields[0].key: Invalid value: "metadata.uid": not a valid field selector key`, `matchFields[1].operator: Invalid value: "Exists"`,
	}},
	{"node affinity that the matcher cannot read", with("      affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Gt, values: [many]}]}]}}}\n"), []string{
		"spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution: Invalid value",
	}},
	{"names of the pod", with("      hostname: a.b\n      subdomain: A\n      serviceAccountName: \"-\"\n      terminationGracePeriodSeconds: -1\n      imagePullSecrets: [{}]\n      hostAliases: [{ip: x, hostnames: [\"_\"]}]\n      nodeSelector: {a: \" \"}\n"), []string{
		`spec.template.spec.nodeSelector: Invalid value: " "`, `spec.template.spec.serviceAccountName: Invalid value`, `spec.template.spec.hostname: Invalid value: "a.b"`, `spec.template.spec.subdomain: Invalid value: "A"`,
		"spec.template.spec.imagePullSecrets[0].name: Required value", "spec.template.spec.hostAliases[0].ip: Invalid value", "spec.template.spec.hostAliases[0].hostnames[0]: Invalid value",
		"spec.template.spec.terminationGracePeriodSeconds: Invalid value: -1",
	}},
	{"DNS", with("      dnsPolicy: Magic\n      dnsConfig: {nameservers: [x], searches: [\"a b\"], options: [{value: x}]}\n"), []string{
		`spec.template.spec.dnsPolicy: Unsupported value: "Magic"`, "spec.template.spec.dnsConfig.nameservers[0]: Invalid value", "spec.template.spec.dnsConfig.searches[0]: Invalid value", "spec.template.spec.dnsConfig.options[0]: Required value",
	}},
	{"DNS without servers", with("      dnsPolicy: None\n"), []string{"spec.template.spec.dnsConfig.nameservers: Required value"}},
	{"Ours: devices without a plugin", with("        resources: {limits: {nvidia.com/gpu: 1}}\n"), []string{
		"spec.template.spec.containers[0].resources.limits[nvidia.com/gpu]: Forbidden: picket cannot do this: there are no device plugins, so no host has any of it",
	}},
	{"Ours: volumes without a driver", with("      volumes: [{name: a, nfs: {server: x, path: /}}, {name: b, persistentVolumeClaim: {claimName: x}}, {name: c, emptyDir: {medium: Paper}}, {name: d, emptyDir: {medium: HugePages-1Gi}}]\n"), []string{
		"spec.template.spec.volumes[0].nfs: Forbidden: picket cannot do this: nfs volumes are not mounted: the volume would be missing",
		"spec.template.spec.volumes[1].persistentVolumeClaim: Forbidden: picket cannot do this: there are no persistent volumes",
		"spec.template.spec.volumes[2].emptyDir.medium: Forbidden: picket cannot do this: only the disk, Memory and HugePages are supported",
	}},
}

func TestInvalidDaemonSets(t *testing.T) {
	for _, c := range invalidDaemonSets {
		t.Run(c.name, func(t *testing.T) {
			p := parse("web.yaml", []byte(c.text))
			if len(p.errs) > 0 {
				t.Fatal(p.errs)
			}
			got := refusals(p.file.Objects[0], nil)
			if len(got) != len(c.want) {
				t.Errorf("%d errors, want %d:\n%s", len(got), len(c.want), strings.Join(got, "\n"))
			}
			for i := range min(len(got), len(c.want)) {
				if !strings.Contains(got[i], c.want[i]) {
					t.Errorf("\ngot  %s\nwant %s", got[i], c.want[i])
				}
			}
		})
	}
}

func refusals(obj, old Object) (lines []string) {
	for _, e := range Validate(defaulted(obj), old) {
		lines = append(lines, e.Error())
	}
	return lines
}

// invalidObjects are the other kinds, on create.
var invalidObjects = map[string]string{
	"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a/b: x}":                                                                    `data[a/b]: Invalid value: "a/b": a valid config key`,
	"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {..: x}":                                                                     `data[..]: Invalid value: "..": must not be '..'`,
	"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: x}\nbinaryData: {a: eA==}":                                               `data[a]: Invalid value: "a": duplicate of key present in binaryData`,
	"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: " + strings.Repeat("x", 1<<20+1) + "}":                                   `data: Too long: it has 1048577 bytes, may not be more than 1048576 bytes`,
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: " + strings.Repeat("x", 1<<20+1) + "}":                                `data: Too long: it has 1048577 bytes, may not be more than 1048576 bytes`,
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: kubernetes.io/dockerconfigjson":                                                 `data[.dockerconfigjson]: Required value`,
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: kubernetes.io/dockerconfigjson\ndata: {.dockerconfigjson: eA==}":                `data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": must be JSON`,
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: kubernetes.io/tls\ndata: {tls.crt: eA==}":                                       `data[tls.key]: Required value`,
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: kubernetes.io/service-account-token":                                            `metadata.annotations[kubernetes.io/service-account.name]: Required value`,
	"apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}":                                                                                  `metadata.name: Invalid value: "a.b": must not contain dots`,
	"apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}":                                                                      `metadata.namespace: Forbidden: not allowed on this type`,
	"apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {taints: [{key: a}]}":                                                             `spec.taints[0].effect: Required value`,
	"apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {taints: [{key: a, effect: X}]}":                                                  `spec.taints[0].effect: Unsupported value: "X"`,
	"apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {taints: [{key: a, effect: NoSchedule}, {key: a, value: b, effect: NoSchedule}]}": `spec.taints[1]: Duplicate value: "a=b:NoSchedule": taints must be unique by key and effect pair`,
	"apiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {\"a b\": c}}":                                                                   `metadata.labels: Invalid value: "a b"`,
}

func TestInvalidObjects(t *testing.T) {
	for text, want := range invalidObjects {
		p := parse("x", []byte(text))
		if len(p.errs) > 0 {
			t.Fatal(p.errs)
		}
		if got := refusals(p.file.Objects[0], nil); len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("%.200s\ngot  %v\nwant %s", text, got, want)
		}
	}
}

func TestImmutableFields(t *testing.T) {
	object := func(text string) Object { return defaulted(parse("x", []byte(text)).file.Objects[0]) }
	cm, secret := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"
	for _, c := range []struct {
		old, new string
		want     []string
	}{
		{webYAML, strings.ReplaceAll(webYAML, "{app: web}", "{app: x}"), []string{"spec.selector: Invalid value"}},
		{webYAML, strings.Replace(webYAML, "image: busybox", "image: other", 1), nil},
		{cm + "data: {a: x}", cm + "data: {a: w}", nil},
		{cm + "immutable: true\ndata: {a: x}", cm + "immutable: true\ndata: {a: x}", nil},
		{cm + "immutable: true\ndata: {a: x}", cm + "data: {a: w}\nbinaryData: {b: eA==}", []string{"immutable: Forbidden", "data: Forbidden", "binaryData: Forbidden"}},
		{secret + "immutable: true\ndata: {a: eA==}", secret + "immutable: true\nstringData: {a: z}", []string{"data: Forbidden: field is immutable when `immutable` is set"}},
		{secret + "type: a", secret + "type: b", []string{"type: Invalid value: \"b\": field is immutable"}},
		{secret, secret + "data: {a: eA==}", nil},
		{cm, strings.Replace(cm, "name: a", "name: b", 1), []string{"metadata.name: Invalid value: \"b\": field is immutable"}},
	} {
		got := refusals(object(c.new), object(c.old))
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s -> %s\ngot  %v\nwant %v", c.old, c.new, got, c.want)
		}
	}
}

// Values decide about warnings: the same field may be honoured with one and not with another.
func TestWarnings(t *testing.T) {
	for lines, want := range map[string]string{
		"      serviceAccountName: robot\n":                                                                              "spec.template.spec.serviceAccountName",
		"      serviceAccountName: default\n":                                                                            "",
		"      serviceAccountName: robot\n      automountServiceAccountToken: false\n":                                   "",
		"      automountServiceAccountToken: true\n":                                                                     "spec.template.spec.automountServiceAccountToken",
		"      priorityClassName: system-node-critical\n":                                                                "",
		"      priorityClassName: high\n":                                                                                "spec.template.spec.priorityClassName",
		"      schedulerName: default-scheduler\n      os: {name: linux}\n":                                              "",
		"        livenessProbe: {tcpSocket: {port: web}}\n":                                                              "spec.template.spec.containers[0].livenessProbe.tcpSocket.port",
		"        livenessProbe: {httpGet: {port: web}}\n        ports: [{name: web, containerPort: 80}]\n":               "",
		"        lifecycle: {preStop: {tcpSocket: {port: 80}}}\n":                                                        "spec.template.spec.containers[0].lifecycle.preStop.tcpSocket",
		"      os: {name: windows}\n":                                                                                    "spec.template.spec.os.name",
		"      shareProcessNamespace: false\n      hostUsers: true\n":                                                    "",
		"      volumes: [{name: a, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]\n":                                       "",
		"      volumes: [{name: a, emptyDir: {sizeLimit: 1Mi}}]\n":                                                       "",
		"      volumes: [{name: a, emptyDir: {medium: HugePages, sizeLimit: 1Mi}}]\n":                                    "spec.template.spec.volumes[0].emptyDir.sizeLimit",
		"      volumes: [{name: a, projected: {sources: [{configMap: {name: x}}, {serviceAccountToken: {path: t}}]}}]\n": "spec.template.spec.volumes[0].projected.sources[1].serviceAccountToken",
		"      securityContext: {seccompProfile: {type: RuntimeDefault}}\n":                                              "",
		"        securityContext: {appArmorProfile: {type: RuntimeDefault}}\n":                                           "",
		"        resources: {requests: {ephemeral-storage: 1Gi}}\n":                                                      "",
		"      affinity: {podAntiAffinity: {}}\n      tolerations: []\n":                                                 "spec.template.spec.affinity.podAntiAffinity",
	} {
		ds := parse("x", []byte(with(lines))).file.Objects[0].(*appsv1.DaemonSet)
		for _, obj := range []Object{ds, defaulted(ds)} {
			got := ""
			for _, w := range Warnings(obj) {
				got += w.Field
			}
			if got != want {
				t.Errorf("%s\ngot  %q\nwant %q", lines, got, want)
			}
		}
	}
	if got := Warnings(&corev1.ConfigMap{}); got != nil {
		t.Errorf("ConfigMap: %v", got)
	}
	w := Warning{Field: "spec.x", Text: "y"}
	if fmt.Sprint(w) != "spec.x: y" {
		t.Errorf("got %s", w)
	}
}
