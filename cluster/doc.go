// Package cluster keeps what a fleet agrees on and, with other hosts, spreads it. It knows nothing of Kubernetes: objects have a
// key, a version and a body, and keys and bodies are bytes.
//
// The Store holds objects. One writer at a time makes them, in the agent its loop: Store.PutAll gives every write the next
// generation of its key, signs it (Seal) and returns when a crash or a power cut can no longer undo it. Any number of readers take
// them from memory. Other hosts' objects come in through Store.MergeAll, which is the whole rule of replication: the higher Version
// stays. TakeNews tells the agent what that changed, and which writes were lost to others.
//
// The Statuses are what hosts say of themselves at this moment, small, signed, and in memory alone. The higher sequence stays.
//
// The Roster is every host that ever was in the fleet and where it stands. Hosts sign Notices; Roster.Merge keeps the highest of
// every voice (the host itself, its peers, doors) and returns what was new when it is on disk. A host speaks with its newest
// certificate: an older one, stolen or put back, says nothing about it any more. Certificates makes the
// Authenticator of a pki.Identity. Whoever serves or calls other hosts asks Roster.Refused about their certificates.
//
// A Membership finds the other hosts, with memberlist, and carries the roster between them. Peers are connections to them, mutual TLS
// bound to the node's name. A Replication carries objects and statuses over these: news go at once to a few neighbours (overlay.go),
// who pass on what was new to them (push.go); what was lost is found by comparing sketches (sketch.go, compare.go), now and then
// with a neighbour, and with whoever is heard by gossip to have something else. Nothing but digests goes by gossip.
//
// The agent calls, in this order:
//
//	OpenDB, OpenRoster, OpenStore, SealWith, OpenStatuses    the file must outlive the rest
//	StartMembership, NewPeers, StartReplication
//	Joined, Synced                         closed when another host has answered; when all that it has is here. Never in a fleet of one
//	Changes, then Snapshot                 one reader; a picture that is the caller's own
//	News, then TakeNews                    of the Store and of the Statuses; one reader
//	Tell, TellStatus                       what PutAll and Say have returned
//	ServeHTTP                              of the Replication, below PeerPath of the API's listener
//	Heard, Ping                            more signs of life than gossip has: Member.Quiet wants them in a fleet of more than five
//	SetJoin, ReloadKeys                    when the config or its files have changed
//	Raise, Delete, Admit                   on disk when they return
//	Leave, Close                           first the Replication's, then the Membership's, then the file's
//
// What memberlist says is not taken on trust: whoever has the gossip key can say it. A host's notice says where it is and where its
// API is, and other words in the name of a host of the roster are refused (member_proof.go). A host that memberlist calls dead is asked itself
// before it counts as failed (member_doubt.go), packets and streams that memberlist would fall over are kept from it (gossip_guard.go,
// gossip_inspect.go), and few hosts that are in no roster are remembered. What is left to whoever has the gossip key: to answer pings
// in the place of a host, which needs its address or the numbers of the pings, makes one look alive that has failed; and a host with
// an empty disk believes anybody until the roster comes, and has then a host failed whose name was taken, while the impostor answers.
// Neither gives it a status, an object or a connection.
//
// Everything may be called by any goroutine. Locks are taken in this order and none is held while another package is called,
// but that memberlist calls in with its own: Membership.raising, Statuses.saying, Store.writing, Roster.writing, memberlist's,
// Replication.mu, Membership.mu, Statuses.mu, Store.mu, Roster.mu. What
// memberlist calls (gossip.go, member_events.go) never blocks, writes or calls back; one loop does what follows. Counter is for
// numbers that must survive a restart, incarnations and sequences. Stats are plain numbers; the agent makes metrics of them.
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
