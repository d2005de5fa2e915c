package runtime

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// imageFile is the file of a run's directory that tells which image was found.
const imageFile = "image.json"

// foundImage is what a run needs to know of its image.
type foundImage struct {
	Name string   `json:"name"` // as the job has it
	ID   string   `json:"id"`
	Env  []string `json:"env,omitempty"`
}

// provide returns the image of a run, pulled if it is not there. An image that
// is there under this name is taken as it is.
func (c *Container) provide(ctx context.Context, e *engine, run Run, progress func(string)) (foundImage, error) {
	image := run.Spec.Request.ContainerImage
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return foundImage{}, skyport.Errorf(skyport.CodeUnknownImage, "container image %q: %w", skyport.Abbreviate(image, 200), err)
	}
	named = reference.TagNameOnly(named)
	found, err := inspectImage(ctx, e, image, named)
	if err == nil || !cerrdefs.IsNotFound(err) {
		return found, err
	}
	login, auth, err := loginFor(named, run.Spec.Registries)
	if err != nil {
		return foundImage{}, err
	}
	p := &pull{engine: e, image: image, named: named, login: login, auth: auth, firstPause: c.opts.firstPause}
	err = c.pulls.do(ctx, named.String()+"\x00"+auth, progress, func(ctx context.Context, tell func(string)) error {
		if _, err := inspectImage(ctx, e, image, named); err == nil || !cerrdefs.IsNotFound(err) {
			return err // pulled for another run a moment ago
		}
		if login.CA != "" {
			if err := installCA(ctx, e, login); err != nil {
				return err
			}
		}
		return p.patiently(ctx, tell)
	})
	if err != nil {
		return foundImage{}, err
	}
	found, err = inspectImage(ctx, e, image, named)
	if cerrdefs.IsNotFound(err) {
		return found, skyport.Errorf(skyport.CodeUnknownImage, "container image %s was pulled, and is not there", image)
	}
	return found, err
}

// inspectImage looks for an image on the node. The error is one of errdefs when
// it is not there.
func inspectImage(ctx context.Context, e *engine, image string, named reference.Named) (foundImage, error) {
	ctx, cancel := context.WithTimeout(ctx, 6*engineTime) // it may be busy unpacking
	defer cancel()
	got, err := e.api.ImageInspect(ctx, named.String())
	if cerrdefs.IsNotFound(err) {
		return foundImage{}, err //nolint:wrapcheck // the caller's own
	}
	if err != nil {
		return foundImage{}, fmt.Errorf("look for container image %s: %w", image, plain(err))
	}
	if got.Os != "" && got.Os != "linux" {
		return foundImage{}, skyport.Errorf(skyport.CodeUnsupported, "container image %s is for %s, this node runs linux", image, got.Os)
	}
	if arch := got.Architecture; arch != "" && !slices.Contains(runnable(), arch) {
		return foundImage{}, otherArchitecture(image, arch)
	}
	found := foundImage{Name: image, ID: got.ID}
	if got.Config != nil {
		found.Env = got.Config.Env
	}
	return found, nil
}

// runnable lists the architectures of images that run on this node.
func runnable() []string {
	switch goruntime.GOARCH {
	case "amd64":
		return []string{"amd64", "x86_64", "386"}
	case "arm64":
		return []string{"arm64", "aarch64", "arm"}
	}
	return []string{goruntime.GOARCH}
}

func otherArchitecture(image, arch string) error {
	what := "has no variant for " + goruntime.GOARCH
	if arch != "" {
		what = "is for " + arch
	}
	return skyport.Errorf(skyport.CodeUnsupported, "container image %s %s, and this node is %s", image, what, goruntime.GOARCH).
		WithHint("choose an image that has %s, or a flavor of the image's architecture", goruntime.GOARCH)
}

// loginFor finds what the image's registry wants to know, and in the form that
// the engine takes.
func loginFor(named reference.Named, registries []protocol.Registry) (protocol.Registry, string, error) {
	host := reference.Domain(named)
	login := protocol.Registry{Host: host}
	for _, r := range registries {
		if canonicalHost(r.Host) == canonicalHost(host) {
			login = r
			break
		}
	}
	if login.Username == "" && login.Password == "" {
		return login, "", nil
	}
	address := host
	if canonicalHost(host) == "docker.io" {
		address = "https://index.docker.io/v1/"
	}
	auth, err := authconfig.Encode(registry.AuthConfig{Username: login.Username, Password: login.Password, ServerAddress: address})
	if err != nil {
		return login, "", fmt.Errorf("login of registry %s: %w", host, errors.New("cannot be encoded"))
	}
	return login, auth, nil
}

// canonicalHost knows the names of Docker's own registry.
func canonicalHost(host string) string {
	host = strings.ToLower(strings.TrimPrefix(host, "https://"))
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com":
		return "docker.io"
	}
	return host
}
