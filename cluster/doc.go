// Package cluster keeps what a fleet agrees on and, with other hosts, spreads it. It knows nothing of Kubernetes: objects have a
// key, a version and a body, and keys and bodies are bytes.
//
// One writer at a time makes objects, in the agent its loop: Store.PutAll gives every write the next generation of its key and
// returns when a crash or a power cut can no longer undo it. Any number of readers take them from memory. Other hosts' objects come
// in through Store.Merge, which is the whole rule of replication: the higher Version stays. Membership and the calls between hosts
// have their place beside the Store; nothing in it waits for them.
//
// On disk the objects are records (codec.go) in one bucket of the agent's bbolt file, and a census of them in another. bbolt
// survives crashes, but it believes its file. What is damaged must not end the agent, nor quietly become less:
//
//   - a damaged record, by its checksum: Store.Damaged lists it, and its key goes on above its generation;
//   - records that are missing or old, by the census, and damaged pages, by a walk over all of them before bbolt may open the file
//     (pages.go): OpenDB sets the file aside and begins anew;
//   - a damaged meta page, which bbolt passes over to the state before the last transaction: OpenDB keeps a copy and says so.
//
// Not noticed are changes inside of values that others keep in the same file, and a whole file that was replaced by an older one.
package cluster
