package agent

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
)

// Why tells how far a DaemonSet's rollout has come and what every host does about it, as this one hears them.
func (b *backend) Why(ctx context.Context, name types.NamespacedName) (*daemonset.Why, error) {
	var why *daemonset.Why
	if err := b.loop.do(ctx, func() (err error) {
		why, err = b.loop.why(name)
		return err
	}); err != nil {
		return nil, err
	}
	return why, nil
}

func (l *loop) why(name types.NamespacedName) (*daemonset.Why, error) {
	d, ok := l.daemonSets[name]
	if !ok || d.object == nil {
		return nil, apierrors.NewNotFound(resourceDaemonSets, name.Name)
	}
	var words []daemonset.Status
	nodes := map[string]*corev1.Node{}
	for _, host := range l.memberNames() {
		word := l.wordOf(d, host)
		word.Node = host // this host's own is empty until it has planned
		words = append(words, word)
		nodes[host] = l.nodeNamed(host).compose()
	}
	return daemonset.NewWhy(d.object, d.revisions, words, nodes), nil
}
