package agent

import (
	"context"
	"fmt"
	"reflect"
	"strings"
)

// Reload takes over what may change while the agent runs: the host's labels and taints, where other hosts may be, and the files of
// gossip keys and certificates, which are also looked at by themselves. It returns the keys of other changes,
// which need a restart; they keep their old values.
func (a *Agent) Reload(cfg Config) (restart []string, err error) {
	taints, err := parseTaints(cfg.Node.Taints)
	if err != nil {
		return nil, fmt.Errorf("node.taints: %w", err)
	}
	restart = a.cfg.needRestart(cfg)
	a.fleet.membership.SetJoin(cfg.Cluster.Join)
	if err := a.fleet.membership.ReloadKeys(); err != nil {
		a.loop.trouble("InvalidGossipKeys", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), stuckAfter)
	defer cancel()
	return restart, a.loop.do(ctx, func() error {
		a.cfg.Node.Labels, a.cfg.Node.Taints, a.cfg.Cluster.Join = cfg.Node.Labels, cfg.Node.Taints, cfg.Cluster.Join
		a.loop.node.host.Labels, a.loop.node.host.Taints = cfg.Node.Labels, taints
		a.loop.publishNode(a.loop.node)
		a.loop.tellHost()
		return nil
	})
}

// Reloaded counts that the configuration was read again; err is why it was refused.
func (a *Agent) Reloaded(err error) {
	a.metrics.reloaded(err)
	if err != nil {
		a.loop.trouble("InvalidConfiguration", err)
	}
}

// reloadable are the keys that may change while the agent runs: log is cmd/picketd's own business.
var reloadable = []string{"node.labels", "node.taints", "cluster.join", "log."}

// needRestart names the keys that differ in other and are not reloadable.
func (c Config) needRestart(other Config) []string {
	var keys []string
	differing("", reflect.ValueOf(c), reflect.ValueOf(other), func(key string) {
		for _, r := range reloadable {
			if key == r || strings.HasSuffix(r, ".") && strings.HasPrefix(key, r) {
				return
			}
		}
		keys = append(keys, key)
	})
	return keys
}

// differing calls found with the yaml key of every leaf in which two configurations differ.
func differing(prefix string, a, b reflect.Value, found func(key string)) {
	for i := range a.NumField() {
		key := a.Type().Field(i).Tag.Get("yaml")
		switch {
		case key == "-" || key == "":
		case a.Field(i).Kind() == reflect.Struct:
			differing(prefix+key+".", a.Field(i), b.Field(i), found)
		case !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			found(prefix + key)
		}
	}
}
