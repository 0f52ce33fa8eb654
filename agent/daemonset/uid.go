package daemonset

import (
	"strconv"
	"strings"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/types"
)

// uidSpace is the UUIDv5 name space of everything picket names. Changing it would give every object a new identity.
var uidSpace = uuid.NewSHA1(uuid.NameSpaceDNS, []byte("picket.io"))

// UID is the uid of a replicated object: the same on every host, and another one after the object was deleted and made anew.
// birth is the generation of the write that created it.
func UID(kind, namespace, name string, birth uint64) types.UID {
	return types.UID(derive(kind, namespace, name, strconv.FormatUint(birth, 10)).String())
}

// derive makes a UUIDv5 of parts. A NUL separates them: no name, kind or uid contains one.
func derive(parts ...string) uuid.UUID {
	return uuid.NewSHA1(uidSpace, []byte(strings.Join(parts, "\x00")))
}
