package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/picketd/picket/scripts/lab"
)

// show applies the examples through one host and prints what another one makes of them.
func show(ctx context.Context, p place) error {
	l, err := lab.Open(p.dir)
	if err != nil {
		return err
	}
	one, other := l.Hosts[0], l.Hosts[min(1, len(l.Hosts)-1)]
	fmt.Println("The hosts have no way out of this machine: busybox is built from its static busybox and served beside them as docker.io's.")
	fmt.Println()
	if err := steps(ctx, one, [][]string{
		{"apply", "-f", filepath.Join("configs", "examples")},
		{"rollout", "status", "daemonset/hello", "--timeout=90s"},
		{"rollout", "status", "daemonset/disk-report", "--timeout=90s"},
	}); err != nil {
		return err
	}
	if err := steps(ctx, other, [][]string{
		{"get", "nodes", "-o", "wide"},
		{"get", "daemonsets"},
		{"get", "pods", "-o", "wide"},
	}); err != nil {
		return err
	}
	// A pod that is on a third host, unless the user's taints and cuts leave none there.
	for i := len(l.Hosts) - 1; i >= 0; i-- {
		pod, err := podOn(ctx, other, l.Hosts[i])
		if err != nil {
			return err
		}
		if pod != "" {
			err := steps(ctx, other, [][]string{{"logs", pod, "--tail=3"}})
			p.goOn(l, pod)
			return err
		}
	}
	p.goOn(l, "")
	return nil
}

// steps runs commands of one host in the open.
func steps(ctx context.Context, h *lab.Host, list [][]string) error {
	for _, args := range list {
		fmt.Printf("%s$ picket %s\n", h.Name, strings.Join(args, " "))
		cmd := h.Picket(ctx, args...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("picket %s: %w (the agent's log is %s)", strings.Join(args, " "), err, h.LogFile())
		}
		fmt.Println()
	}
	return nil
}

// podOn is the name of the pod of hello on a host, asked of another; "" when there is none.
func podOn(ctx context.Context, asked, h *lab.Host) (string, error) {
	out, err := asked.Picket(ctx, "get", "pods", "-l", "app=hello", "--field-selector=spec.nodeName="+h.Name, "-o", "jsonpath={.items[*].metadata.name}").Output()
	if err != nil {
		return "", fmt.Errorf("cannot ask %s for the pods on %s: %w", asked.Name, h.Name, err)
	}
	pod, _, _ := strings.Cut(string(out), " ")
	return pod, nil
}

// goOn prints what a user may do next. pod is one of hello's, "" when there is none.
func (p place) goOn(l *lab.Lab, pod string) {
	one, last := l.Hosts[0], l.Hosts[len(l.Hosts)-1]
	fmt.Printf("Go on (the commands are kubectl's, and any host answers for all):\n  export PICKET_SOCKET=%s PATH=%s:$PATH\n", one.Socket, p.binaries())
	if pod == "" {
		fmt.Println("  picket apply -f configs/examples && picket get nodes,daemonsets,pods -o wide")
	} else {
		fmt.Printf(`  picket describe daemonset hello
  picket logs -f %[1]s
  picket exec -it %[1]s -- sh
  picket set image daemonset/hello hello=busybox:latest && picket rollout status daemonset/hello
  picket label node %[3]s disktype=ssd && picket get pods -o wide    # disk-report starts there
  picket taint node %[2]s dedicated=storage:NoExecute && picket get pods -o wide    # hello goes there, disk-report tolerates it
`, pod, last.Name, l.Hosts[1%len(l.Hosts)].Name)
	}
	fmt.Printf(`kubectl works too: kubectl --kubeconfig %[1]s get pods -o wide
Make trouble, and look at it with picket get nodes and get pods:
  go run ./scripts/run kill %[2]s      # its agent
  go run ./scripts/run crash %[2]s     # its power; boot %[2]s gives it back
  go run ./scripts/run cut %[2]s       # its cable; heal ends that
  nsenter --net=%[3]s ip addr
All of a host is in its directory, such as %[4]s: picketd.log, picketd.yaml, images (for archives of images), manifests.d.
Stop: make fleet-down
`, one.Kubeconfig, last.Name, last.Namespace, last.Dir)
}
