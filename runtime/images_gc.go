package runtime

import (
	"cmp"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// The kubelet's defaults: imageGCHighThresholdPercent, imageGCLowThresholdPercent and imageMinimumGCAge.
const (
	imageGCHighPercent = 85
	imageGCLowPercent  = 80
	imageGCMinAge      = 2 * time.Minute
)

// storedImage is an image of this host: all names that mean one digest.
type storedImage struct {
	digest   digest.Digest
	names    []string // of containerd's records
	imported bool     // one of them comes from an archive that is still in imagesDir
	inUse    bool     // a container of it is there, whatever its state
	pulled   time.Time
	lastUsed time.Time // by a container or for a pod that was to start; when it was pulled, if neither was seen
}

// diskSpace is a file system's, in bytes. What root alone may use counts as used.
type diskSpace struct{ capacity, available int64 }

// used is in percent, rounded up as the kubelet does.
func (d diskSpace) used() int64 { return 100 - d.available*100/max(d.capacity, 1) }

// toFree is how many bytes have to go: none below the high mark, down to the low mark above it. wanted is the room that a pull which
// was refused for lack of it needs.
func (d diskSpace) toFree(wanted int64) int64 {
	free := max(wanted-d.available, 0)
	if d.used() >= imageGCHighPercent {
		free = max(free, d.capacity*(100-imageGCLowPercent)/100-d.available)
	}
	return free
}

// unusedImages are those that may go, the one that was used longest ago first: no container is made of them, nobody has pinned one of
// their names or their digest, they did not come from an archive that is there, and they are not so new that their container may be
// about to be made.
func unusedImages(images []storedImage, pinned []imageName, now time.Time) []storedImage {
	pins := map[string]bool{}
	for _, p := range pinned {
		pins[p.record] = true
		if p.digest != "" {
			pins[p.digest.String()] = true
		}
	}
	isPinned := func(name string) bool { return pins[name] }
	unused := slices.DeleteFunc(slices.Clone(images), func(i storedImage) bool {
		return i.inUse || i.imported || pins[i.digest.String()] || slices.ContainsFunc(i.names, isPinned) || now.Sub(i.pulled) < imageGCMinAge
	})
	slices.SortFunc(unused, func(a, b storedImage) int {
		return cmp.Or(a.lastUsed.Compare(b.lastUsed), a.pulled.Compare(b.pulled), cmp.Compare(a.digest, b.digest))
	})
	return unused
}
