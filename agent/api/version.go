package api

import (
	goruntime "runtime"
	"runtime/debug"
	"strings"
)

// versionInfo is what /version says.
type versionInfo struct {
	Major        string `json:"major"`
	Minor        string `json:"minor"`
	GitVersion   string `json:"gitVersion"`
	GitCommit    string `json:"gitCommit"`
	GitTreeState string `json:"gitTreeState"`
	BuildDate    string `json:"buildDate"`
	GoVersion    string `json:"goVersion"`
	Compiler     string `json:"compiler"`
	Platform     string `json:"platform"`
}

// newVersionInfo names the Kubernetes version whose API types are served, with picket's own as build metadata
// ("v1.37.2+picket.0.1.0"): kubectl compares minor versions and warns when they are far apart.
func newVersionInfo(picket string) versionInfo {
	minor, patch := kubernetesVersion()
	return versionInfo{
		Major: "1", Minor: minor, GitVersion: "v1." + minor + "." + patch + "+picket." + metadata(strings.TrimPrefix(picket, "v")),
		GoVersion: goruntime.Version(), Compiler: goruntime.Compiler, Platform: goruntime.GOOS + "/" + goruntime.GOARCH,
	}
}

// kubernetesVersion is that of the module k8s.io/api: v0.37.2 belongs to Kubernetes 1.37.2.
func kubernetesVersion() (minor, patch string) {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if parts := strings.Split(module.Version, "."); module.Path == "k8s.io/api" && len(parts) == 3 {
				return parts[1], parts[2]
			}
		}
	}
	return "37", "0"
}

// metadata keeps what semantic versions allow in build metadata.
func metadata(s string) string {
	if s == "" {
		return "dev"
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '-', r == '.':
			return r
		}
		return '-'
	}, s)
}
