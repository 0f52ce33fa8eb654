package runtime

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// effectiveUser is who the container's process is. The image names its user by number or by name, with or without a group;
// the container's security context overrides each. Groups that the image's /etc/group gives the user are added, unless that is
// not wanted.
func effectiveUser(s Security, img *unpackedImage) (specs.User, error) {
	name := img.config.User
	if s.RunAsUser != nil {
		name = strconv.FormatInt(*s.RunAsUser, 10)
	}
	if err := checkNonRoot(s, img.config.User); err != nil {
		return specs.User{}, err
	}
	found, err := user.GetExecUser(name, nil, source(img.passwd), source(img.group))
	if err != nil {
		return specs.User{}, fmt.Errorf("%w: user %q of image %s: %w", ErrConfig, name, img.ref, err)
	}
	// With a group named, the library leaves out those of the user.
	alone, _, _ := strings.Cut(name, ":")
	member, err := user.GetExecUser(alone, nil, source(img.passwd), source(img.group))
	if err != nil {
		return specs.User{}, fmt.Errorf("%w: user %q of image %s: %w", ErrConfig, alone, img.ref, err)
	}
	gid := int64(found.Gid)
	if s.RunAsGroup != nil {
		gid = *s.RunAsGroup
	}
	groups := []int64{gid}
	for _, g := range member.Sgids {
		if !s.OnlyTheseGroups {
			groups = append(groups, int64(g))
		}
	}
	return specsUser(int64(found.Uid), gid, append(groups, s.SupplementalGroups...))
}

func specsUser(uid, gid int64, groups []int64) (specs.User, error) {
	u := specs.User{UID: uint32(uid), GID: uint32(gid)}
	for _, id := range append([]int64{uid, gid}, groups...) {
		if id < 0 || id > math.MaxUint32 {
			return u, fmt.Errorf("%w: %d is no user or group id", ErrConfig, id)
		}
	}
	for _, g := range groups {
		if !slices.Contains(u.AdditionalGids, uint32(g)) {
			u.AdditionalGids = append(u.AdditionalGids, uint32(g))
		}
	}
	return u, nil
}

// checkNonRoot is the kubelet's rule: a name is not believed, for the image says what it means.
func checkNonRoot(s Security, imageUser string) error {
	if !s.RunAsNonRoot {
		return nil
	}
	if s.RunAsUser != nil {
		if *s.RunAsUser == 0 {
			return fmt.Errorf("%w: container's runAsUser breaks non-root policy", ErrConfig)
		}
		return nil
	}
	name, _, _ := strings.Cut(imageUser, ":")
	if name == "" {
		name = "0"
	}
	uid, err := strconv.ParseInt(name, 10, 64)
	switch {
	case err != nil:
		return fmt.Errorf("%w: container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root", ErrConfig, name)
	case uid == 0:
		return fmt.Errorf("%w: container has runAsNonRoot and image will run as root", ErrConfig)
	}
	return nil
}

// source is a nil io.Reader for a file that is not there, as the library wants it.
func source(data []byte) io.Reader {
	if data == nil {
		return nil
	}
	return bytes.NewReader(data)
}
