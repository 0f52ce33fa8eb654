package main

import (
	"os"
	"testing"

	"k8s.io/cli-runtime/pkg/genericclioptions"
)

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name                       string
		kubeconfig, server, socket string // flags
		env                        map[string]string
		wantFile, wantSocket       string
	}{
		{name: "nothing said", wantFile: os.DevNull, wantSocket: defaultSocket},
		{name: "KUBECONFIG does not count", env: map[string]string{"KUBECONFIG": "/k"}, wantFile: os.DevNull, wantSocket: defaultSocket},
		{name: "file by environment", env: map[string]string{"PICKET_KUBECONFIG": "/p"}, wantFile: "/p"},
		{
			name: "socket before file", env: map[string]string{"PICKET_KUBECONFIG": "/p", "PICKET_SOCKET": "/e"},
			wantFile: os.DevNull, wantSocket: "/e",
		},
		{name: "flag before environment", socket: "/s", env: map[string]string{"PICKET_SOCKET": "/e"}, wantFile: os.DevNull, wantSocket: "/s"},
		{name: "kubeconfig before all", kubeconfig: "/k", socket: "/s", env: map[string]string{"PICKET_KUBECONFIG": "/p"}, wantFile: "/k"},
		{name: "another host of the same fleet", server: "https://b:9746", env: map[string]string{"PICKET_KUBECONFIG": "/p"}, wantFile: "/p"},
		{name: "server without a file", server: "https://b:9746", wantFile: os.DevNull},
	} {
		flags := genericclioptions.NewConfigFlags(true)
		*flags.KubeConfig, *flags.APIServer = c.kubeconfig, c.server
		conn := &connection{flags: flags, socket: c.socket, lookupEnv: func(name string) (string, bool) {
			value, ok := c.env[name]
			return value, ok
		}}
		conn.choose()
		socket := ""
		if conn.tunnel != nil {
			socket = conn.tunnel.socket
		}
		if *flags.KubeConfig != c.wantFile || socket != c.wantSocket {
			t.Errorf("%s: file %q and socket %q, want %q and %q", c.name, *flags.KubeConfig, socket, c.wantFile, c.wantSocket)
		}
		if c.server != "" && *flags.APIServer != c.server {
			t.Errorf("%s: the server became %q", c.name, *flags.APIServer)
		}
	}
}
