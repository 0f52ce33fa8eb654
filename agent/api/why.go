package api

import (
	"fmt"
	"net/http"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/picketd/picket/agent/daemonset"
)

// whyVersion is the apiVersion of a daemonset.Why. It is an answer, not an object: nobody stores, lists or watches it, so discovery
// does not name it.
const whyVersion = "picket.io/v1"

// whyOf reads the DaemonSet's name out of /apis/picket.io/v1/namespaces/NAMESPACE/daemonsets/NAME/why.
func whyOf(path string) (name types.NamespacedName, ok bool) {
	rest, ok := strings.CutPrefix(path, "/apis/"+whyVersion+"/namespaces/")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 4 || parts[0] == "" || parts[1] != "daemonsets" || parts[2] == "" || parts[3] != "why" {
		return name, false
	}
	return types.NamespacedName{Namespace: parts[0], Name: parts[2]}, true
}

// why answers viewers and up.
func (s *Server) why(w http.ResponseWriter, c *call, name types.NamespacedName) error {
	if c.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return apierrors.NewMethodNotSupported(schema.GroupResource{Resource: c.URL.Path}, strings.ToLower(c.Method))
	}
	release, err := s.admit(w, c)
	if err != nil {
		return err
	}
	defer release()
	why, err := s.backend.Why(c.Context(), name)
	if err != nil {
		return err
	}
	why.TypeMeta = metav1.TypeMeta{APIVersion: whyVersion, Kind: "Why"}
	writeJSON(w, http.StatusOK, why)
	return nil
}

// standstill says why the rollout of the one DaemonSet that is watched does not go on. kubectl's rollout status knows no such thing of a
// DaemonSet, but it prints warnings.
func (s *Server) standstill(sel selection) []string {
	if sel.resource.Kind != "DaemonSet" || sel.name == "" || sel.namespace == "" {
		return nil
	}
	obj, ok := s.cache.Get(sel.resource.GroupResource(), sel.namespace, sel.name)
	if !ok {
		return nil
	}
	for _, c := range obj.(*appsv1.DaemonSet).Status.Conditions {
		switch {
		case c.Type == daemonset.ConditionProgressing && c.Reason == "RolloutPaused":
			return []string{fmt.Sprintf("the rollout of daemon set %q is paused, %s: picket rollout resume ds/%s lets it go on", sel.name, c.Message, sel.name)}
		case c.Type == daemonset.ConditionBlocked && c.Status == corev1.ConditionTrue:
			return []string{fmt.Sprintf("the rollout of daemon set %q is blocked: %s", sel.name, c.Message)}
		}
	}
	return nil
}
