package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// annotationDefaultContainer names the container that logs and exec mean when none is named.
const annotationDefaultContainer = "kubectl.kubernetes.io/default-container"

func (s *Server) logs(w http.ResponseWriter, c *call) error {
	pod, err := s.pod(c)
	if err != nil {
		return err
	}
	if node := s.elsewhere(pod); node != "" {
		return s.forward(w, c, node)
	}
	opts, err := logOptions(c.URL.Query(), c.name)
	if err != nil {
		return err
	}
	if opts.Container, err = chooseContainer(pod, opts.Container); err != nil {
		return err
	}
	if err := hasLog(pod, opts.Container, opts.Previous); err != nil {
		return err
	}
	out := &logWriter{w: w}
	err = s.backend.Logs(c.Context(), pod, opts, out)
	switch {
	case err != nil && !out.started:
		return err
	case err != nil:
		s.log.Debug("log ended early", "pod", c.name, "container", opts.Container, "error", err)
	case !out.started:
		out.start()
	}
	return nil
}

// pod is the pod of the request.
func (s *Server) pod(c *call) (*corev1.Pod, error) {
	obj, err := s.current(c)
	if err != nil {
		return nil, err
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("cannot use a %T as a pod", obj)
	}
	return pod, nil
}

// logWriter sends every line when it comes. The answer begins with the first one: until then an error can still be a Status.
type logWriter struct {
	w       http.ResponseWriter
	started bool
}

func (l *logWriter) start() {
	l.started = true
	l.w.Header().Set("Content-Type", "text/plain")
	l.w.WriteHeader(http.StatusOK)
}

func (l *logWriter) Write(p []byte) (int, error) {
	if !l.started {
		l.start()
	}
	if err := sendNow(l.w, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// logOptions reads PodLogOptions from the query and checks them as Kubernetes does.
func logOptions(q url.Values, pod string) (*corev1.PodLogOptions, error) {
	p := parameters{values: q}
	opts := &corev1.PodLogOptions{
		Container:    q.Get("container"),
		Follow:       p.boolean("follow"),
		Previous:     p.boolean("previous"),
		Timestamps:   p.boolean("timestamps"),
		SinceSeconds: p.number("sinceSeconds", 1),
		SinceTime:    p.time("sinceTime"),
		TailLines:    p.number("tailLines", 0),
		LimitBytes:   p.number("limitBytes", 1),
	}
	if opts.SinceSeconds != nil && opts.SinceTime != nil {
		p.errs = append(p.errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	}
	if name := q.Get("stream"); name != "" {
		opts.Stream = &name
		all := []string{corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr}
		if !slices.Contains(all, name) {
			p.errs = append(p.errs, field.NotSupported(field.NewPath("stream"), name, all))
		} else if name != corev1.LogStreamAll && opts.TailLines != nil {
			p.errs = append(p.errs, field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now"))
		}
	}
	if len(p.errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "PodLogOptions"}, pod, p.errs)
	}
	return opts, nil
}

// parameters reads typed values of a query and collects what is wrong with them.
type parameters struct {
	values url.Values
	errs   field.ErrorList
}

// boolean reads as Kubernetes does: there and neither "0" nor "false".
func (p *parameters) boolean(name string) bool {
	if !p.values.Has(name) {
		return false
	}
	v := p.values.Get(name)
	return v != "0" && !strings.EqualFold(v, "false")
}

func (p *parameters) number(name string, least int64) *int64 {
	v := p.values.Get(name)
	if v == "" {
		return nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	switch {
	case err != nil:
		p.errs = append(p.errs, field.Invalid(field.NewPath(name), v, "must be a number"))
	case n < least && least == 0:
		p.errs = append(p.errs, field.Invalid(field.NewPath(name), n, "must be greater than or equal to 0"))
	case n < least:
		p.errs = append(p.errs, field.Invalid(field.NewPath(name), n, "must be greater than 0"))
	}
	return &n
}

func (p *parameters) time(name string) *metav1.Time {
	v := p.values.Get(name)
	if v == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		p.errs = append(p.errs, field.Invalid(field.NewPath(name), v, "must be a time as in RFC 3339, like 2026-01-02T15:04:05Z"))
	}
	return &metav1.Time{Time: t}
}

// chooseContainer finds the container that is meant: the named one, the pod's default one, or the only one.
func chooseContainer(pod *corev1.Pod, name string) (string, error) {
	containers, inits, ephemeral := containerNames(pod)
	all := slices.Concat(containers, inits, ephemeral)
	if name != "" {
		if !slices.Contains(all, name) {
			return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
		}
		return name, nil
	}
	if name = pod.Annotations[annotationDefaultContainer]; name != "" && slices.Contains(all, name) {
		return name, nil
	}
	if len(containers) == 1 {
		return containers[0], nil
	}
	text := fmt.Sprintf("a container name must be specified for pod %s, choose one of: %v", pod.Name, containers)
	if len(inits) > 0 {
		text += fmt.Sprintf(" or one of the init containers: %v", inits)
	}
	if len(ephemeral) > 0 {
		text += fmt.Sprintf(" or one of the ephemeral containers: %v", ephemeral)
	}
	return "", apierrors.NewBadRequest(text)
}

func containerNames(pod *corev1.Pod) (containers, inits, ephemeral []string) {
	for _, c := range pod.Spec.Containers {
		containers = append(containers, c.Name)
	}
	for _, c := range pod.Spec.InitContainers {
		inits = append(inits, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, c.Name)
	}
	return containers, inits, ephemeral
}

// containerStatus finds a container's status; nil when it was never looked at.
func containerStatus(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// hasLog refuses, in the kubelet's words, to read the log of a container that has not run.
func hasLog(pod *corev1.Pod, container string, previous bool) error {
	refuse := func(format string, args ...any) error {
		return apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q ", container, pod.Name) + fmt.Sprintf(format, args...))
	}
	status := containerStatus(pod, container)
	if status == nil {
		return refuse("is not available")
	}
	ended := status.LastTerminationState.Terminated != nil
	if previous {
		if !ended {
			return apierrors.NewBadRequest(fmt.Sprintf("previous terminated container %q in pod %q not found", container, pod.Name))
		}
		return nil
	}
	switch {
	case status.State.Running != nil, status.State.Terminated != nil, ended:
		return nil
	case status.State.Waiting == nil:
		return refuse("is waiting to start - no logs yet")
	case status.State.Waiting.Reason == "ErrImagePull":
		return refuse("is waiting to start: image can't be pulled")
	case status.State.Waiting.Reason == "ImagePullBackOff":
		return refuse("is waiting to start: trying and failing to pull image")
	default:
		return refuse("is waiting to start: %v", status.State.Waiting.Reason)
	}
}
