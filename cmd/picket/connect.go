package main

import (
	"net/url"
	"os"
	"path/filepath"

	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// defaultSocket is where picketd listens unless its api.socket says otherwise.
const defaultSocket = "/run/picket/picket.sock"

// connection is what the command talks to.
type connection struct {
	flags     *genericclioptions.ConfigFlags
	lookupEnv func(string) (string, bool)
	// socket is the flag's value.
	socket string
	// defaultCache is the cache directory unless --cache-dir names another.
	defaultCache string
	// tunnel leads to the socket; nil when a kubeconfig is used.
	tunnel *tunnel
}

// choose picks, in this order, --kubeconfig (or --server), --socket or PICKET_SOCKET, PICKET_KUBECONFIG, the default socket.
// KUBECONFIG and ~/.kube/config are never read: a `picket delete` must not reach somebody's Kubernetes.
func (c *connection) choose() {
	if *c.flags.KubeConfig == "" {
		*c.flags.KubeConfig = os.DevNull // an explicit path keeps the defaults away; this one is an empty kubeconfig
		file, _ := c.lookupEnv("PICKET_KUBECONFIG")
		socket := c.socket
		if socket == "" {
			socket, _ = c.lookupEnv("PICKET_SOCKET")
		}
		switch {
		case *c.flags.APIServer != "":
			if file != "" {
				*c.flags.KubeConfig = file
			}
		case socket != "":
			c.use(socket)
		case file != "":
			*c.flags.KubeConfig = file
		default:
			c.use(defaultSocket)
		}
	}
}

// use talks to a unix socket. Its discovery cache is its own: two agents need not serve the same.
func (c *connection) use(socket string) {
	c.tunnel = &tunnel{socket: socket}
	*c.flags.APIServer = "http://" + socketHost
	if *c.flags.CacheDir == c.defaultCache {
		*c.flags.CacheDir = filepath.Join(c.defaultCache, url.PathEscape(socket))
	}
}

// cacheDir is where discovery and OpenAPI answers are kept. Without a home there is no cache: below /dev/null nothing can be made,
// which kubectl takes in its stride.
func cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.DevNull
	}
	return filepath.Join(dir, "picket")
}
