package api

import (
	"fmt"
	"net/http"

	"github.com/google/uuid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/picketd/picket/agent/manifest"
)

// writeAttempts is how often an update that names no resourceVersion is tried anew when the object changed meanwhile.
const writeAttempts = 5

func (s *Server) create(w http.ResponseWriter, c *call) error {
	opts, err := createOptions(c.URL.Query())
	if err != nil {
		return err
	}
	obj, warnings, err := s.decodeObject(w, c, opts)
	if err != nil {
		return err
	}
	if err := c.checkNames(obj); err != nil {
		return err
	}
	if obj.GetResourceVersion() != "" {
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	if err := s.checkNamespace(c); err != nil {
		return err
	}
	generated, err := c.setName(obj)
	if err != nil {
		return err
	}
	obj.SetUID("")
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
	obj.SetGeneration(1)
	copyStatus(obj, nil)
	warnings, err = finish(c, obj, nil, warnings)
	if err != nil {
		return err
	}
	made, err := s.write(c, Write{Name: obj.GetName(), Object: obj, Create: true, DryRun: opts.dryRun})
	if err != nil {
		if generated && apierrors.IsAlreadyExists(err) {
			return apierrors.NewGenerateNameConflict(c.resource.GroupResource(), obj.GetName(), 1)
		}
		return err
	}
	if opts.dryRun {
		made = asIfCreated(made)
	}
	warn(w, warnings)
	return c.writeObject(w, http.StatusCreated, made)
}

// asIfCreated gives an object that was never made what a made one has.
func asIfCreated(obj Object) Object {
	made := obj.DeepCopyObject().(Object)
	if made.GetUID() == "" {
		made.SetUID(types.UID(uuid.NewString()))
	}
	if made.GetCreationTimestamp().Time.IsZero() {
		made.SetCreationTimestamp(metav1.Now())
	}
	return made
}

func (s *Server) update(w http.ResponseWriter, c *call) error {
	opts, err := updateOptions(c.URL.Query())
	if err != nil {
		return err
	}
	obj, warnings, err := s.decodeObject(w, c, opts)
	if err != nil {
		return err
	}
	if obj.GetName() == "" {
		return invalid(c, "", field.ErrorList{field.Required(field.NewPath("metadata", "name"), "name must be provided")})
	}
	if err := c.checkNames(obj); err != nil {
		return err
	}
	return s.modify(w, c, opts.dryRun, func(Object) (Object, []string, error) {
		return obj.DeepCopyObject().(Object), warnings, nil
	})
}

// modify replaces an object by what change makes of the current one, again when that has changed meanwhile. The result of change
// is ours to alter; the resourceVersion in it, if any, must be the current one.
func (s *Server) modify(w http.ResponseWriter, c *call, dryRun bool, change func(current Object) (Object, []string, error)) error {
	for attempt := 1; ; attempt++ {
		before, err := s.current(c)
		if err != nil {
			return err
		}
		after, warnings, err := change(before)
		if err != nil {
			return err
		}
		pinned, err := c.carryOver(after, before)
		if err != nil {
			return err
		}
		warnings, err = finish(c, after, before, warnings)
		if err != nil {
			return err
		}
		if c.user.role < admin {
			if refused := s.operatorMayChange(before, after); refused != "" {
				return c.forbidden(refused)
			}
		}
		if apiequality.Semantic.DeepEqual(before, after) {
			warn(w, warnings)
			return c.writeObject(w, http.StatusOK, before)
		}
		made, err := s.write(c, Write{Name: c.name, Object: after, ResourceVersion: before.GetResourceVersion(), UID: before.GetUID(), DryRun: dryRun})
		if apierrors.IsConflict(err) && !pinned && attempt < writeAttempts {
			continue
		}
		if err != nil {
			return err
		}
		warn(w, warnings)
		return c.writeObject(w, http.StatusOK, made)
	}
}

// carryOver gives the new object what a client cannot change, and checks its preconditions. pinned tells that it insists on a
// resourceVersion.
func (c *call) carryOver(after, before Object) (pinned bool, err error) {
	if uid := after.GetUID(); uid != "" && uid != before.GetUID() {
		return false, apierrors.NewConflict(c.resource.GroupResource(), c.name,
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, before.GetUID()))
	}
	pinned = after.GetResourceVersion() != ""
	if pinned && after.GetResourceVersion() != before.GetResourceVersion() {
		return true, errModified(c.resource.GroupResource(), c.name)
	}
	after.SetUID(before.GetUID())
	after.SetResourceVersion(before.GetResourceVersion())
	after.SetCreationTimestamp(before.GetCreationTimestamp())
	after.SetDeletionTimestamp(before.GetDeletionTimestamp())
	after.SetDeletionGracePeriodSeconds(before.GetDeletionGracePeriodSeconds())
	after.SetSelfLink("")
	after.SetGeneration(before.GetGeneration())
	copyStatus(after, before)
	return pinned, nil
}

// copyStatus keeps the status out of clients' hands; from may be nil.
func copyStatus(to, from Object) {
	switch to := to.(type) {
	case *appsv1.DaemonSet:
		to.Status = appsv1.DaemonSetStatus{}
		if from, ok := from.(*appsv1.DaemonSet); ok {
			to.Status = from.Status
		}
	case *corev1.Node:
		to.Status = corev1.NodeStatus{}
		if from, ok := from.(*corev1.Node); ok {
			to.Status = from.Status
		}
	case *corev1.Namespace:
		to.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
		if from, ok := from.(*corev1.Namespace); ok {
			to.Status = from.Status
		}
	}
}

// finish defaults and validates an object on its way to the Backend and adds the warnings about fields that are not honoured.
func finish(c *call, obj, before Object, warnings []string) ([]string, error) {
	manifest.Default(obj)
	if ds, ok := obj.(*appsv1.DaemonSet); ok {
		if was, ok := before.(*appsv1.DaemonSet); ok && !apiequality.Semantic.DeepEqual(was.Spec, ds.Spec) {
			ds.Generation++
		}
	}
	var old manifest.Object
	if before != nil {
		old = before
	}
	if errs := manifest.Validate(obj, old); len(errs) > 0 {
		return nil, invalid(c, obj.GetName(), errs)
	}
	for _, warning := range manifest.Warnings(obj) {
		warnings = append(warnings, warning.String())
	}
	return warnings, nil
}

func invalid(c *call, name string, errs field.ErrorList) error {
	return apierrors.NewInvalid(c.resource.GroupKind(), name, errs)
}

// write hands a change to the Backend and says in the log who made it.
func (s *Server) write(c *call, write Write) (Object, error) {
	write.Resource, write.Namespace, write.Author = c.resource.GroupResource(), c.namespace, c.user.name
	if !write.DryRun { // a dry run is a question: `kubectl diff`
		if err := s.mayWrite(write.Resource, write.Name); err != nil {
			return nil, err
		}
	}
	obj, err := s.backend.Write(c.Context(), write)
	if !write.DryRun {
		log := s.log.With(c.user.attrs()...).With("verb", c.verb, "resource", write.Resource.String(), "namespace", write.Namespace, "name", write.Name)
		if err != nil {
			log = log.With("error", err)
		}
		log.Info("write")
	}
	return obj, err
}

// decodeObject reads the object in the body. Unknown and duplicate fields are errors, warnings or nothing, as the client asks.
func (s *Server) decodeObject(w http.ResponseWriter, c *call, opts writeOptions) (Object, []string, error) {
	body, err := c.body(w)
	if err != nil {
		return nil, nil, err
	}
	obj, err := codecs.newObject(c.resource)
	if err != nil {
		return nil, nil, err
	}
	problems, err := codecs.decode(body, c.Header.Get("Content-Type"), obj)
	if err != nil {
		return nil, nil, err
	}
	warnings, err := opts.judge(problems)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", c.resource.Kind, c.resource.Version, c.resource.Kind, err))
	}
	return obj, warnings, nil
}

// checkNames compares the object's names with those of the path, and fills in the namespace.
func (c *call) checkNames(obj Object) error {
	if c.name != "" && obj.GetName() != c.name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), c.name))
	}
	if obj.GetNamespace() != "" && obj.GetNamespace() != c.namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	obj.SetNamespace(c.namespace)
	return nil
}

// setName makes a name of metadata.generateName where there is none.
func (c *call) setName(obj Object) (generated bool, err error) {
	const room = 63 - 5 // of a label value, less the suffix
	prefix := obj.GetGenerateName()
	switch {
	case obj.GetName() != "":
		return false, nil
	case prefix == "":
		return false, invalid(c, "", field.ErrorList{field.Required(field.NewPath("metadata", "name"), "name or generateName is required")})
	case len(prefix) > room:
		prefix = prefix[:room]
	}
	obj.SetName(prefix + rand.String(5))
	return true, nil
}

// checkNamespace refuses to create in a namespace that nobody made. The ones that every cluster has always exist.
func (s *Server) checkNamespace(c *call) error {
	switch c.namespace {
	case "", metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic:
		return nil
	}
	namespaces := lookupNamespaces().GroupResource()
	if _, ok := s.cache.Get(namespaces, "", c.namespace); !ok {
		return apierrors.NewNotFound(namespaces, c.namespace)
	}
	return nil
}
