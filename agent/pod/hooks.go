package pod

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

func (w *Worker) runHook(ctx context.Context, handler corev1.LifecycleHandler, id string, container *corev1.Container, ip string) error {
	return nil
}
