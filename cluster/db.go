package cluster

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// lockTimeout is how long OpenDB waits for another process to let go of the file.
const lockTimeout = time.Second

// OpenDB opens the state file.
func OpenDB(path string) (db *bbolt.DB, setAside string, err error) {
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bbolt.ErrTimeout) {
		return nil, "", fmt.Errorf("cannot open the state file %s: another picketd uses it", path)
	}
	if err != nil {
		return nil, "", fmt.Errorf("cannot open the state file %s: %w", path, err)
	}
	return db, "", nil
}
