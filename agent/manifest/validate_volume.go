package manifest

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateVolumes returns the volumes by name beside the errors.
func validateVolumes(volumes []corev1.Volume, path *field.Path) (map[string]*corev1.Volume, field.ErrorList) {
	var errs field.ErrorList
	byName := map[string]*corev1.Volume{}
	for i := range volumes {
		v, at := &volumes[i], path.Index(i)
		switch {
		case v.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case byName[v.Name] != nil:
			errs = append(errs, field.Duplicate(at.Child("name"), v.Name))
		default:
			errs = append(errs, invalid(at.Child("name"), v.Name, validation.IsDNS1123Label(v.Name))...)
			byName[v.Name] = v
		}
		errs = append(errs, validateVolumeSource(&v.VolumeSource, at)...)
	}
	return byName, errs
}

func validateVolumeSource(s *corev1.VolumeSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	first := ""
	for t, v, i := reflect.TypeFor[corev1.VolumeSource](), reflect.ValueOf(*s), 0; i < t.NumField(); i++ {
		if v.Field(i).IsNil() {
			continue
		}
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if first != "" {
			errs = append(errs, field.Forbidden(path.Child(name), "may not specify more than 1 volume type"))
		}
		first = name
	}
	switch {
	case s.EmptyDir != nil:
		if limit := s.EmptyDir.SizeLimit; limit != nil && limit.Sign() < 0 {
			errs = append(errs, field.Forbidden(path.Child("emptyDir", "sizeLimit"), "SizeLimit field must be a valid resource quantity"))
		}
		if mode := s.EmptyDir.Mode; mode != nil && (*mode < 0 || *mode > 0o1777) {
			errs = append(errs, field.Invalid(path.Child("emptyDir", "mode"), *mode, "must be a number between 0 and 01777 (octal), both inclusive"))
		}
	case s.HostPath != nil:
		errs = append(errs, validateHostPath(s.HostPath, path.Child("hostPath"))...)
	case s.Secret != nil:
		at := path.Child("secret")
		errs = append(errs, required(s.Secret.SecretName, at.Child("secretName"))...)
		errs = append(errs, validateOwned(s.Secret.DefaultMode, s.Secret.DefaultUser, at.Child("defaultMode"), at.Child("defaultUser"))...)
		errs = append(errs, validateItems(s.Secret.Items, at.Child("items"))...)
	case s.ConfigMap != nil:
		at := path.Child("configMap")
		errs = append(errs, required(s.ConfigMap.Name, at.Child("name"))...)
		errs = append(errs, validateOwned(s.ConfigMap.DefaultMode, s.ConfigMap.DefaultUser, at.Child("defaultMode"), at.Child("defaultUser"))...)
		errs = append(errs, validateItems(s.ConfigMap.Items, at.Child("items"))...)
	case s.DownwardAPI != nil:
		at := path.Child("downwardAPI")
		errs = append(errs, validateOwned(s.DownwardAPI.DefaultMode, s.DownwardAPI.DefaultUser, at.Child("defaultMode"), at.Child("defaultUser"))...)
		errs = append(errs, validateDownwardAPI(s.DownwardAPI.Items, at.Child("items"))...)
	case s.Projected != nil:
		errs = append(errs, validateProjected(s.Projected, path.Child("projected"))...)
	}
	return errs
}

func required(value string, path *field.Path) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return nil
}

func validateHostPath(h *corev1.HostPathVolumeSource, at *field.Path) field.ErrorList {
	errs := required(h.Path, at.Child("path"))
	for _, part := range strings.Split(h.Path, "/") {
		if part == ".." {
			errs = append(errs, field.Invalid(at.Child("path"), h.Path, "must not contain '..'"))
			break
		}
	}
	if h.Path != "" && !strings.HasPrefix(h.Path, "/") {
		// Ours: Kubernetes hands a relative path on to the runtime, where every container fails on it.
		errs = append(errs, field.Invalid(at.Child("path"), h.Path, "must be an absolute path"))
	}
	if h.Type == nil || *h.Type == corev1.HostPathUnset {
		return errs
	}
	return append(errs, oneOf(*h.Type, at.Child("type"), corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate, corev1.HostPathFile,
		corev1.HostPathFileOrCreate, corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev)...)
}

// validateOwned is about the mode and the owner of files.
func validateOwned(mode *int32, user *int64, modeAt, userAt *field.Path) field.ErrorList {
	var errs field.ErrorList
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		errs = append(errs, field.Invalid(modeAt, *mode, "must be a number between 0 and 0777 (octal), both inclusive"))
	}
	if user != nil {
		errs = append(errs, invalid(userAt, *user, validation.IsValidUserID(*user))...)
	}
	return errs
}

func validateItems(items []corev1.KeyToPath, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, item := range items {
		at := path.Index(i)
		errs = append(errs, required(item.Key, at.Child("key"))...)
		errs = append(errs, validateFilePath(item.Path, at.Child("path"))...)
		errs = append(errs, validateOwned(item.Mode, item.User, at.Child("mode"), at.Child("user"))...)
	}
	return errs
}

// validateFilePath is for files that a volume makes: inside the volume, and out of the way of its ..data link.
func validateFilePath(name string, at *field.Path) field.ErrorList {
	errs := append(required(name, at), validateLocalPath(name, at)...)
	if strings.HasPrefix(name, "..") && len(errs) == 0 {
		errs = append(errs, field.Invalid(at, name, "must not start with '..'"))
	}
	return errs
}

func validateLocalPath(name string, at *field.Path) field.ErrorList {
	if path.IsAbs(name) {
		return field.ErrorList{field.Invalid(at, name, "must be a relative path")}
	}
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return field.ErrorList{field.Invalid(at, name, "must not contain '..'")}
		}
	}
	return nil
}

func validateDownwardAPI(items []corev1.DownwardAPIVolumeFile, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, item := range items {
		at := path.Index(i)
		errs = append(errs, validateFilePath(item.Path, at.Child("path"))...)
		errs = append(errs, validateOwned(item.Mode, item.User, at.Child("mode"), at.Child("user"))...)
		switch {
		case item.FieldRef != nil && item.ResourceFieldRef != nil:
			errs = append(errs, field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		case item.FieldRef != nil:
			errs = append(errs, validateFieldRef(item.FieldRef, volumeFields, at.Child("fieldRef"))...)
		case item.ResourceFieldRef != nil:
			errs = append(errs, validateResourceFieldRef(item.ResourceFieldRef, true, at.Child("resourceFieldRef"))...)
		default:
			errs = append(errs, field.Required(at, "one of fieldRef and resourceFieldRef is required"))
		}
	}
	return errs
}

func validateProjected(p *corev1.ProjectedVolumeSource, path *field.Path) field.ErrorList {
	errs := validateOwned(p.DefaultMode, p.DefaultUser, path.Child("defaultMode"), path.Child("defaultUser"))
	files := sets.New[string]()
	file := func(name string, at *field.Path) {
		if files.Has(name) {
			errs = append(errs, field.Invalid(at, name, "conflicting duplicate paths"))
		}
		files.Insert(name)
	}
	for i, source := range p.Sources {
		at := path.Child("sources").Index(i)
		if n := countSet(source); n != 1 {
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("must specify exactly 1 volume type, not %d", n)))
		}
		if s := source.Secret; s != nil {
			errs = append(errs, required(s.Name, at.Child("secret", "name"))...)
			errs = append(errs, validateItems(s.Items, at.Child("secret", "items"))...)
			for _, item := range s.Items {
				file(item.Path, at.Child("secret", "items"))
			}
		}
		if c := source.ConfigMap; c != nil {
			errs = append(errs, required(c.Name, at.Child("configMap", "name"))...)
			errs = append(errs, validateItems(c.Items, at.Child("configMap", "items"))...)
			for _, item := range c.Items {
				file(item.Path, at.Child("configMap", "items"))
			}
		}
		if d := source.DownwardAPI; d != nil {
			errs = append(errs, validateDownwardAPI(d.Items, at.Child("downwardAPI", "items"))...)
			for _, item := range d.Items {
				file(item.Path, at.Child("downwardAPI", "items"))
			}
		}
		if token := source.ServiceAccountToken; token != nil {
			errs = append(errs, validateFilePath(token.Path, at.Child("serviceAccountToken", "path"))...)
		}
	}
	return errs
}

func countSet(source corev1.VolumeProjection) int {
	n := 0
	for v, i := reflect.ValueOf(source), 0; i < v.NumField(); i++ {
		if !v.Field(i).IsNil() {
			n++
		}
	}
	return n
}

func validateMounts(c *corev1.Container, volumes map[string]*corev1.Volume, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	mountPaths := sets.New[string]()
	for i, m := range c.VolumeMounts {
		at := path.Index(i)
		switch volume := volumes[m.Name]; {
		case m.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case volume == nil:
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		switch {
		case m.MountPath == "":
			errs = append(errs, field.Required(at.Child("mountPath"), ""))
		case mountPaths.Has(m.MountPath):
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
		}
		mountPaths.Insert(m.MountPath)
		if m.SubPath != "" {
			errs = append(errs, validateLocalPath(m.SubPath, at.Child("subPath"))...)
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
			}
			errs = append(errs, validateLocalPath(m.SubPathExpr, at.Child("subPathExpr"))...)
		}
		errs = append(errs, validateMountOptions(&m, c, at)...)
	}
	return errs
}

func validateMountOptions(m *corev1.VolumeMount, c *corev1.Container, at *field.Path) field.ErrorList {
	errs := oneOfIfSet(m.MountPropagation, at.Child("mountPropagation"),
		corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	if m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional &&
		(c.SecurityContext == nil || !isTrue(c.SecurityContext.Privileged)) {
		errs = append(errs, field.Forbidden(at.Child("mountPropagation"), "Bidirectional mount propagation is available only to privileged containers"))
	}
	options := at.Child("bindMountOptions")
	for i, option := range m.BindMountOptions {
		errs = append(errs, oneOf(option, options.Index(i), "noexec", "nodev", "nosuid")...)
		if slices.Contains(m.BindMountOptions[:i], option) {
			errs = append(errs, field.Duplicate(options.Index(i), option))
		}
	}
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return errs
	}
	rro := at.Child("recursiveReadOnly")
	errs = append(errs, oneOf(*m.RecursiveReadOnly, rro,
		corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyIfPossible, corev1.RecursiveReadOnlyEnabled)...)
	if !m.ReadOnly {
		errs = append(errs, field.Forbidden(rro, "may only be specified when readOnly is true"))
	}
	if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
		errs = append(errs, field.Forbidden(rro, "may only be specified when mountPropagation is None or not specified"))
	}
	return errs
}
