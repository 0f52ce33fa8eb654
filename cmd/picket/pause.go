package main

import (
	"errors"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/polymorphichelpers"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/completion"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/picketd/picket/agent/daemonset"
)

// pauseDaemonSets makes kubectl's rollout pause and resume, which know Deployments only, work on DaemonSets. Flags and texts stay kubectl's.
func pauseDaemonSets(root *cobra.Command, f cmdutil.Factory) {
	polymorphichelpers.ObjectPauserFn, polymorphichelpers.ObjectResumerFn = paused, resumed
	texts := map[string]struct{ short, long, example string }{
		"pause": {"Mark a daemon set's rollout as paused", `
			Mark the rollout of a daemon set as paused.

			While it is paused no host takes a healthy pod down for an update: one that has begun finishes. A pod that is not available
			is replaced all the same. The mark is the annotation ` + daemonset.AnnotationPaused + `="true".`, `
			# Stop the rollout of the daemon set web where it is
			picket rollout pause daemonset/web`},
		"resume": {"Resume a paused rollout", `
			Resume the paused rollout of a daemon set.`, `
			# Let the rollout of the daemon set web go on
			picket rollout resume daemonset/web`},
	}
	for name, text := range texts {
		c, _, err := root.Find([]string{"rollout", name})
		if err != nil {
			continue
		}
		c.Short, c.Long, c.Example = text.short, templates.LongDesc(text.long), templates.Examples(text.example)
		c.ValidArgsFunction = completion.SpecifiedResourceTypeAndNameCompletionFunc(f, []string{"daemonset"})
	}
}

// paused returns the object with the mark. Its errors are kubectl's for a Deployment.
func paused(obj runtime.Object) ([]byte, error) {
	ds, ok := obj.(*appsv1.DaemonSet)
	switch {
	case !ok:
		return nil, errors.New("pausing is not supported")
	case daemonset.Paused(ds):
		return nil, errors.New("is already paused")
	}
	metav1.SetMetaDataAnnotation(&ds.ObjectMeta, daemonset.AnnotationPaused, "true")
	return encode(ds)
}

// resumed returns the object without the mark.
func resumed(obj runtime.Object) ([]byte, error) {
	ds, ok := obj.(*appsv1.DaemonSet)
	switch {
	case !ok:
		return nil, errors.New("resuming is not supported")
	case !daemonset.Paused(ds):
		return nil, errors.New("is not paused")
	}
	delete(ds.Annotations, daemonset.AnnotationPaused)
	return encode(ds)
}

func encode(ds *appsv1.DaemonSet) ([]byte, error) {
	return runtime.Encode(scheme.Codecs.LegacyCodec(appsv1.SchemeGroupVersion), ds)
}
