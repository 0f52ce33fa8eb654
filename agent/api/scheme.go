package api

import (
	"fmt"
	"mime"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// Media types of bodies.
const (
	mediaJSON     = "application/json"
	mediaYAML     = "application/yaml"
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
)

// codec decodes bodies and encodes answers for the types served here only: client-go's scheme knows every Kubernetes API and
// costs megabytes.
type codec struct {
	scheme   *runtime.Scheme
	json     *json.Serializer
	yaml     *json.Serializer
	protobuf *protobuf.Serializer
}

// codecs is the one codec; it never changes.
var codecs = newCodec()

func newCodec() *codec {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(corev1.SchemeGroupVersion,
		&corev1.ConfigMap{}, &corev1.ConfigMapList{}, &corev1.Event{}, &corev1.EventList{}, &corev1.Namespace{}, &corev1.NamespaceList{},
		&corev1.Node{}, &corev1.NodeList{}, &corev1.Pod{}, &corev1.PodList{}, &corev1.Secret{}, &corev1.SecretList{})
	scheme.AddKnownTypes(appsv1.SchemeGroupVersion,
		&appsv1.DaemonSet{}, &appsv1.DaemonSetList{}, &appsv1.ControllerRevision{}, &appsv1.ControllerRevisionList{})
	scheme.AddKnownTypes(authenticationv1.SchemeGroupVersion, &authenticationv1.SelfSubjectReview{})
	scheme.AddKnownTypes(authorizationv1.SchemeGroupVersion,
		&authorizationv1.SelfSubjectAccessReview{}, &authorizationv1.SelfSubjectRulesReview{})
	scheme.AddKnownTypes(policyv1.SchemeGroupVersion, &policyv1.Eviction{})
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	for _, r := range resources {
		metav1.AddToGroupVersion(scheme, r.GroupVersion)
	}
	strict := json.SerializerOptions{Strict: true, StreamingCollectionsEncoding: true}
	yaml := strict
	yaml.Yaml = true
	return &codec{
		scheme:   scheme,
		json:     json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, strict),
		yaml:     json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, yaml),
		protobuf: protobuf.NewSerializer(scheme, scheme),
	}
}

// acceptedBodies are the media types of decode.
const acceptedBodies = mediaJSON + ", " + mediaYAML + ", " + mediaProtobuf

// decoder is the one for a Content-Type; nil when it is not understood.
func (c *codec) decoder(contentType string) runtime.Decoder {
	switch mediaType(contentType) {
	case mediaJSON:
		return c.json
	case mediaYAML:
		return c.yaml
	case mediaProtobuf:
		return c.protobuf
	default:
		return nil
	}
}

// splitStrict tells the problems that fieldValidation is about from errors that leave nothing decoded.
func splitStrict(err error) (problems []error, fatal error) {
	if strict, ok := runtime.AsStrictDecodingError(err); ok {
		return strict.Errors(), nil
	}
	return nil, err
}

// mediaType reads a Content-Type; an empty one is JSON.
func mediaType(contentType string) string {
	if contentType == "" {
		return mediaJSON
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return contentType
	}
	return media
}

// decode reads a body into into, which also says which kind is expected. The problems are unknown and duplicate fields: the
// object is decoded all the same.
func (c *codec) decode(body []byte, contentType string, into runtime.Object) (problems []error, err error) {
	decoder := c.decoder(contentType)
	if decoder == nil {
		return nil, errUnsupportedMediaType(acceptedBodies)
	}
	want, _, err := c.scheme.ObjectKinds(into)
	if err != nil {
		return nil, err
	}
	out, got, err := decoder.Decode(body, &want[0], into)
	problems, err = splitStrict(err)
	switch {
	case err != nil && got != nil && got.Kind != "":
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, want[0].Kind, err))
	case err != nil:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v", want[0].Kind, err))
	case got.GroupVersion() != want[0].GroupVersion():
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)",
			got.GroupVersion(), want[0].GroupVersion()))
	case got.Kind != want[0].Kind || out != into:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: no kind %q is served here",
			got.Kind, got.Version, want[0].Kind, got.Kind))
	}
	into.GetObjectKind().SetGroupVersionKind(want[0])
	return problems, nil
}

// newObject returns an empty object of a resource.
func (c *codec) newObject(r *resource) (Object, error) {
	obj, err := c.scheme.New(r.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	object, ok := obj.(Object)
	if !ok {
		return nil, fmt.Errorf("cannot serve %s: %T has no metadata", r.Name, obj)
	}
	return object, nil
}
