package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.etcd.io/bbolt"

	"github.com/picketd/picket/cluster"
	"github.com/picketd/picket/cluster/pki"
)

var (
	bucketBinding = []byte("binding") // cluster -> name; authorities -> their SHA-256, one after the other; foreign -> 1
	keyCluster    = []byte("cluster")
	keyAuthority  = []byte("authorities")
	keyForeign    = []byte("foreign")
)

// openBound opens the state file, which belongs to one fleet: the cluster's name and its authorities, of which one must stay when
// others change. Another fleet's state is set aside, so that none of it is ever offered to the new one. setAside says what was, and
// why; "" is nothing.
func openBound(path, fleet string, id *pki.Identity, log *slog.Logger) (db *bbolt.DB, setAside string, err error) {
	db, damaged, err := cluster.OpenDB(path)
	if err != nil {
		return nil, "", err
	}
	if damaged != "" {
		setAside = fmt.Sprintf("the state file was damaged; it is kept as %s. What runs goes on; DaemonSets that are missing now come back from other hosts, from the manifests directory or by kubectl apply", damaged)
	}
	was, err := boundTo(db, id)
	if err != nil {
		return nil, "", closeAfter(db, err)
	}
	if was == "" || was == fleet {
		return db, setAside, bind(db, fleet, id, false)
	}
	if err := db.Close(); err != nil {
		return nil, "", err
	}
	aside := fmt.Sprintf("%s.of-another-fleet-%s", path, time.Now().UTC().Format("20060102T150405.000"))
	if err := os.Rename(path, aside); err != nil {
		return nil, "", fmt.Errorf("cannot set aside the state of another fleet: %w", err)
	}
	if db, _, err = cluster.OpenDB(path); err != nil {
		return nil, "", err
	}
	log.Warn("the state was another fleet's and is set aside", "fleet", was, "kept", aside)
	setAside = fmt.Sprintf("dataDir was that of the fleet %s, this host is in the fleet %s now: the old state is kept as %s. Pods that this fleet wants too go on, the others stop once this host has heard from the fleet", was, fleet, aside)
	return db, setAside, bind(db, fleet, id, true)
}

// boundTo is the name of the fleet that the state belongs to: "" when it belongs to none, "its authority" beside its name when that is
// another one of the same name.
func boundTo(db *bbolt.DB, id *pki.Identity) (fleet string, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketBinding)
		if b == nil {
			return nil
		}
		fleet = string(b.Get(keyCluster))
		known := b.Get(keyAuthority)
		for _, ca := range id.AuthorityCertificates() {
			sum := sha256.Sum256(ca)
			for rest := known; len(rest) >= len(sum); rest = rest[len(sum):] {
				if bytes.Equal(rest[:len(sum)], sum[:]) {
					return nil
				}
			}
		}
		fleet += " (of another authority)"
		return nil
	})
	return fleet, err
}

// bind notes whose the state is. Nothing is written when that is noted already: an agent must start on a full disk.
func bind(db *bbolt.DB, fleet string, id *pki.Identity, foreign bool) error {
	var authorities []byte
	for _, ca := range id.AuthorityCertificates() {
		sum := sha256.Sum256(ca)
		authorities = append(authorities, sum[:]...)
	}
	same := false
	err := db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketBinding)
		same = b != nil && string(b.Get(keyCluster)) == fleet && bytes.Equal(b.Get(keyAuthority), authorities)
		return nil
	})
	if err != nil || same && !foreign {
		return closeAfter(db, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketBinding)
		if err != nil {
			return err
		}
		if foreign {
			if err := b.Put(keyForeign, []byte{1}); err != nil {
				return err
			}
		}
		if err := b.Put(keyCluster, []byte(fleet)); err != nil {
			return err
		}
		return b.Put(keyAuthority, authorities)
	})
	if err != nil {
		err = fmt.Errorf("cannot note in %s which fleet it belongs to: %w", db.Path(), err)
	}
	return closeAfter(db, err)
}

// closeAfter closes the file when there is an error.
func closeAfter(db *bbolt.DB, err error) error {
	if err != nil {
		_ = db.Close()
	}
	return err
}

// foreign says whether pods of another fleet may still run here.
func (s *state) foreign() (yes bool) {
	_ = s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketBinding)
		yes = b != nil && b.Get(keyForeign) != nil
		return nil
	})
	return yes
}

func (s *state) noMoreForeign() error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketBinding).Delete(keyForeign) })
}

// foreignGrace is how long pods of another fleet may go on where no other host is to be heard of.
const foreignGrace = time.Minute

// endForeign ends pods of the fleet that this host was in before, and that its present one does not want, once that is known.
func (a *Agent) endForeign(ctx context.Context) {
	if !a.loop.state.foreign() {
		return
	}
	var grace <-chan time.Time
	if a.fleet.alone() {
		grace = time.After(foreignGrace)
	}
	select {
	case <-a.fleet.replication.Synced():
	case <-grace:
	case <-ctx.Done():
		return
	}
	_ = a.loop.do(ctx, a.loop.endForeign)
}

// endForeign ends the pods of DaemonSets that nobody knows here: they are of a fleet that this host was in before.
func (l *loop) endForeign() error {
	for name, d := range l.daemonSets {
		for _, h := range l.pods.of(name) {
			if d.known {
				continue
			}
			l.trouble("ForeignPod", fmt.Errorf("pod %s is of a fleet that this host was in before, and its DaemonSet %s is not known here: it is stopped", h.Pod.Name, name))
			if err := l.pods.stop(h.Pod.UID, nil, "of another fleet", l.now()); err != nil {
				return err
			}
		}
	}
	return l.state.noMoreForeign()
}
