package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// statusFile is where an agent tells the next one what containerd cannot.
const statusFile = "status.json"

// readSaved reads a pod's status.json. An unreadable one is set aside and reported: the containers then tell what they can.
func readSaved(dir, uid string) (*saved, error) {
	path := filepath.Join(dir, statusFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read what is known of the pod: %w", err)
	}
	s := &saved{}
	err = json.Unmarshal(data, s)
	if err == nil && s.UID != uid {
		err = fmt.Errorf("it speaks of pod %q", s.UID)
	}
	if err != nil {
		if aside := os.Rename(path, path+".corrupt"); aside != nil {
			err = errors.Join(err, aside)
		}
		return nil, fmt.Errorf("cannot use %s, set aside: %w", path, err)
	}
	return s, nil
}

// writeSaved replaces status.json without fsync: nothing on the way to a container may wait for a disk.
func writeSaved(dir string, s saved) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", statusFile, err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("cannot make the pod's directory: %w", err)
	}
	path := filepath.Join(dir, statusFile)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("cannot replace %s: %w", path, err)
	}
	return nil
}
