// Package pki makes, reads and serves a fleet's certificates: one authority for the fleet, a certificate for every host and one
// for every user. Everything is ed25519. A role is an organization in the certificate, so whoever holds the authority's key
// decides who may do what; no host is asked.
//
// A directory of certificates holds
//
//	ca.crt      the authorities that are trusted, more than one while they change
//	ca.key      the authority's key; only where certificates are made
//	host.crt    this host's certificate, for its server and for calls to other hosts
//	host.key
//	admin.crt   a user's certificate, made by FirstStart only
//	admin.key
//	gossip.keys the keys that encrypt gossip, the same on all hosts
//
// Init makes the directory of a fleet's administrator (ca.crt, ca.key, gossip.keys), HostKit.Write that of a host (ca.crt, host.crt,
// host.key, gossip.keys), FirstStart that of a host which is a fleet of its own. Files are replaced atomically; keys have mode 0600.
package pki

import "fmt"

// The files of a directory of certificates.
const (
	FileCA       = "ca.crt"
	FileCAKey    = "ca.key"
	FileHost     = "host.crt"
	FileHostKey  = "host.key"
	FileAdmin    = "admin.crt"
	FileAdminKey = "admin.key"
)

// The organizations of host certificates. A door may write objects for the fleet and forward users' calls.
const (
	GroupHosts = "picket:hosts"
	GroupDoors = "picket:doors"
)

// Role is the organization of a user's certificate; each may do what those before it may.
type Role string

// The roles of users.
const (
	Viewer   Role = "picket:viewers"
	Operator Role = "picket:operators"
	Admin    Role = "picket:admins"
)

// ParseRole reads viewer, operator or admin.
func ParseRole(s string) (Role, error) {
	switch s {
	case "viewer":
		return Viewer, nil
	case "operator":
		return Operator, nil
	case "admin":
		return Admin, nil
	}
	return "", fmt.Errorf("no role %q: viewer, operator or admin", s)
}
