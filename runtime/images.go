package runtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
)

// library is what the runtime knows of images besides what containerd has.
type library struct {
	pulls    sharedPulls
	slots    *semaphore.Weighted // of pulls
	archives archives
	usage    usage
	uses     imageUses
	wanted   wantedRoom
	voice    voice
}

func newLibrary() library {
	return library{slots: semaphore.NewWeighted(pullsAtOnce), archives: newArchives(), wanted: wantedRoom{bell: make(chan struct{}, 1)}}
}

// EnsureImage makes the image present and unpacked, following the pull policy. Under Always a registry that cannot be reached
// does not keep an image that is present from being used (Image.Warning says so), and a name that was imported from imagesDir
// counts as pulled. Equal requests share one pull. There is no limit to the time that a pull takes, only to a registry's silence.
//
// ErrInvalidImageName, ErrImageNeverPull, ErrUnavailable, or in words what the registry said.
func (r *Runtime) EnsureImage(ctx context.Context, request ImageRequest) (Image, error) {
	image, err := r.ensureImage(ctx, request)
	if err == nil {
		r.library.uses.now(digest.Digest(image.Digest))
	}
	return image, err
}

func (r *Runtime) ensureImage(ctx context.Context, request ImageRequest) (Image, error) {
	name, err := parseImageName(request.Ref)
	if err != nil {
		return Image{}, err
	}
	present, err := r.presentOrImported(ctx, name)
	switch {
	case err != nil:
		return Image{}, err
	case present.digest != "" && (request.Policy != PullAlways || present.imported):
		return name.image(fetched{digest: present.digest}), nil
	case request.Policy == PullNever:
		return Image{}, fmt.Errorf("%s: %w", name.record, ErrImageNeverPull)
	}
	logins := matching(request.Credentials, name)
	result, err := r.library.pulls.do(ctx, name.record+" "+fingerprint(logins), func(ctx context.Context) (fetched, error) {
		result, err := r.fetch(ctx, name, present, logins)
		if result.pulled {
			r.images.forget(name.record) // it means another image now
			r.imagesChanged(ctx)
		}
		return result, err
	})
	switch {
	case err == nil:
		r.warm(ctx, name.at(result.digest))
		return name.image(result), nil
	case errors.Is(err, errUnreachable) && present.digest != "":
		image := name.image(fetched{digest: present.digest})
		image.Warning = err.Error() + "; the image that is present is used"
		return image, nil
	}
	return Image{}, err
}

// presentOrImported finds the image here, if need be in imagesDir.
func (r *Runtime) presentOrImported(ctx context.Context, name imageName) (presentImage, error) {
	present, err := r.present(ctx, name)
	if present.digest != "" || err != nil || r.cfg.ImagesDir == "" {
		return present, err
	}
	// Archives that are broken are reported by the agent's own call.
	if err := r.ImportImages(ctx); ctx.Err() != nil || errors.Is(err, ErrUnavailable) {
		return presentImage{}, err
	}
	return r.present(ctx, name)
}

// warm has the image's configuration at hand for the container that is about to be created.
func (r *Runtime) warm(ctx context.Context, ref string) {
	if _, err := r.unpacked(ctx, ref); err != nil {
		r.log.Debug("cannot read an image ahead", "image", ref, "error", err) // who creates the container is told
	}
}

func (n imageName) image(f fetched) Image {
	return Image{Ref: n.at(f.digest), Digest: f.digest.String(), ID: n.id(f.digest), Pulled: f.pulled}
}

// presentImage is what this host has under a name.
type presentImage struct {
	digest   digest.Digest // of the manifest or index, "" for nothing
	imported bool          // from an archive that is still in imagesDir
}
