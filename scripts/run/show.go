package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// show applies the examples and prints what a user would look at.
func show(ctx context.Context, p place) error {
	if names, err := os.ReadFile(p.offline()); err == nil {
		fmt.Printf("docker.io cannot be reached: %s is built from this machine's static busybox and served from a local registry\nunder the same name, so the manifests are used as they are.\n\n", names)
	}
	examples := filepath.Join("configs", "examples")
	for _, step := range [][]string{
		{"apply", "-f", examples},
		{"rollout", "status", "daemonset/hello", "--timeout=90s"},
		{"rollout", "status", "daemonset/disk-report", "--timeout=90s"},
		{"get", "nodes", "-o", "wide"},
		{"get", "daemonsets"},
		{"get", "pods", "-o", "wide"},
		{"logs", "daemonset/hello", "--tail=3"},
		{"logs", "daemonset/disk-report", "--tail=3"},
	} {
		if err := p.step(ctx, step); err != nil {
			return err
		}
	}
	fmt.Printf(`Go on (the commands are kubectl's):
  export PICKET_SOCKET=%s PATH=%s:$PATH
  picket describe daemonset hello
  picket logs -f daemonset/hello
  picket exec -it daemonset/hello -- sh
  picket set image daemonset/hello hello=busybox:latest && picket rollout status daemonset/hello
  picket label node --all disktype-      # refused: the configuration file owns this label
  picket taint node --all dedicated=storage:NoExecute && picket get pods    # hello goes, disk-report tolerates it
kubectl works too: kubectl --kubeconfig %s get pods
The agent's log is %s, its configuration %s.
Stop: make stop
`, p.socket(), filepath.Join(p.root, "bin"), filepath.Join(p.dir, "data", "kubeconfig"), p.log(), p.config())
	return nil
}

// step runs one command in the open.
func (p place) step(ctx context.Context, args []string) error {
	fmt.Printf("$ picket %s\n", strings.Join(args, " "))
	cmd := p.picket(ctx, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("picket %s: %w (the agent's log is %s)", strings.Join(args, " "), err, p.log())
	}
	fmt.Println()
	return nil
}
