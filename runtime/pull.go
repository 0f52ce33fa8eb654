package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/connectivity"
)

const (
	// pullsAtOnce bounds the images that are fetched at the same time, for all pods together. A kubelet's default is one, behind which
	// a small image waits for a large one. More than a few are no faster together: what takes the time is unpacking, and that takes the
	// disk and the processor from what runs here.
	pullsAtOnce = 3
	// unleaseTimeout bounds giving back a lease; one that stays expires within a day.
	unleaseTimeout = 20 * time.Second
)

// errUnreachable: no registry could be asked. What is present may be used instead.
var errUnreachable = errors.New("registry cannot be reached")

// fetch asks the registry what the image's name means now, and fetches that unless it is what is present. Each login is tried
// until one is good. Its error is ErrUnavailable, errUnreachable or a pullError.
func (r *Runtime) fetch(ctx context.Context, image imageName, present presentImage, logins []Credential) (fetched, error) {
	var err error
	for _, login := range logins {
		var result fetched
		if result, err = r.fetchAs(ctx, image, present, login, logins); err == nil {
			return result, nil
		}
		if !refused(err) {
			break
		}
	}
	return fetched{}, err
}

func (r *Runtime) fetchAs(ctx context.Context, image imageName, present presentImage, login Credential, all []Credential) (fetched, error) {
	ctx = r.quiet(r.ctx(ctx))
	g := r.openRegistry(ctx, image, login, all)
	defer g.close()
	if present.digest != "" {
		g.wait(askPatience)
	}
	desc, err := g.resolve(ctx)
	if err != nil {
		return fetched{}, r.pullFailed(ctx, g, err)
	}
	if desc.Digest == present.digest {
		return fetched{digest: desc.Digest}, nil
	}
	g.wait(pullPatience)
	if err := r.library.slots.Acquire(ctx, 1); err != nil {
		return fetched{}, err
	}
	defer r.library.slots.Release(1)
	if err := r.pull(ctx, g, desc); err != nil {
		return fetched{}, r.pullFailed(ctx, g, err)
	}
	return fetched{digest: desc.Digest, pulled: true}, nil
}

// pull fetches and unpacks. The image's record comes last: what was cut off never counts as present. What was fetched by then
// is leased until the end, and is left to containerd's garbage collector, or to the next try if that comes first.
func (r *Runtime) pull(ctx context.Context, g *registry, desc ocispec.Descriptor) (err error) {
	ctx, unlease, err := r.lease(ctx)
	if err != nil {
		return err
	}
	defer func() { unlease(err) }()
	_, err = r.client.Pull(ctx, g.image.record, client.WithPullUnpack, client.WithPullSnapshotter(snapshotter),
		client.WithResolver(resolved{g.resolver, desc}), client.WithImageHandler(images.HandlerFunc(r.roomNow(ctx).handle)))
	return err
}

// lease keeps what is made under its context from being collected. What it returns gives the lease back; after an error for
// want of space it waits until what was leased is gone.
func (r *Runtime) lease(ctx context.Context) (context.Context, func(error), error) {
	service := r.client.LeasesService()
	lease, err := service.Create(ctx, leases.WithRandomID(), leases.WithExpiration(24*time.Hour))
	if err != nil {
		return ctx, nil, fmt.Errorf("cannot get a lease: %w", err)
	}
	return leases.WithLease(ctx, lease.ID), func(result error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unleaseTimeout)
		defer cancel()
		var options []leases.DeleteOpt
		if result != nil && noSpace(result) {
			options = append(options, leases.SynchronousDelete)
		}
		if err := service.Delete(ctx, lease, options...); err != nil && !errdefs.IsNotFound(err) {
			r.log.Debug("a lease stays until it expires", "lease", lease.ID, "error", err)
		}
	}, nil
}

// resolved does not ask again.
type resolved struct {
	remotes.Resolver
	desc ocispec.Descriptor
}

func (r resolved) Resolve(_ context.Context, ref string) (string, ocispec.Descriptor, error) {
	return ref, r.desc, nil
}

// pullFailed judges an error of resolver, registry or containerd.
func (r *Runtime) pullFailed(ctx context.Context, g *registry, err error) error {
	switch broken := r.brokenOff(err); {
	case ctx.Err() != nil:
		return ctx.Err()
	case broken != nil:
		return broken
	case unreachable(err) || errdefs.IsNotFound(err) && g.lastFailed.Load():
		// A mirror that does not have it says nothing about the registry behind it.
		err = fmt.Errorf("%w: %w", errUnreachable, err)
	}
	return pullFailure(g.image, err)
}

// brokenOff is ErrUnavailable when something long failed because containerd went away, else nil. Its streams break in many words.
func (r *Runtime) brokenOff(err error) error {
	if native := r.native(err); errors.Is(native, ErrUnavailable) {
		return native
	}
	if r.connectionState() != connectivity.Ready {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}
