package runtime

import "errors"

// Errors a caller acts on, matched with errors.Is. Their texts are shown to users after the reason.
var (
	// ErrNotFound: no such container, pod or image.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: containerd cannot be reached; nothing is known to have changed. Try again after EventConnected.
	ErrUnavailable = errors.New("containerd cannot be reached")
	// ErrInvalidImageName: the reference cannot be parsed (reason InvalidImageName).
	ErrInvalidImageName = errors.New("invalid image name")
	// ErrImageNeverPull: policy Never and the image is absent (reason ErrImageNeverPull).
	ErrImageNeverPull = errors.New("image is not present and the pull policy is Never")
	// ErrConfig: the container cannot be made as configured, e.g. runAsNonRoot with a root image (reason CreateContainerConfigError).
	ErrConfig = errors.New("container cannot be made as configured")
	// ErrStart: the process could not be started, e.g. command not found (reason StartError / RunContainerError, exit code 128).
	ErrStart = errors.New("process could not be started")
)
