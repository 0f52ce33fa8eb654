package pki

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Kubeconfig makes a configuration for kubectl that holds everything it needs. server is a URL; the rest of the arguments are
// PEM, and the names the cluster and its user get. The result holds a key: it belongs in a file of mode 0600.
func Kubeconfig(server string, ca []byte, pair Pair, cluster, user string) []byte {
	context := user + "@" + cluster
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[4]s
  user:
    client-certificate-data: %[5]s
    client-key-data: %[6]s
contexts:
- name: %[7]s
  context:
    cluster: %[1]s
    user: %[4]s
current-context: %[7]s
`, quote(cluster), quote(server), base64.StdEncoding.EncodeToString(ca), quote(user),
		base64.StdEncoding.EncodeToString(pair.Cert), base64.StdEncoding.EncodeToString(pair.Key), quote(context))
}

// quote makes a string of YAML: JSON's are.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string cannot fail
	}
	return string(b)
}
