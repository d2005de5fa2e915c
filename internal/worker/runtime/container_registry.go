package runtime

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// registryHost is what may become the name of a directory.
var registryHost = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$`)

// installCA makes the engine trust the authority of a registry.
func installCA(ctx context.Context, e *engine, login protocol.Registry) error {
	host := login.Host
	if !registryHost.MatchString(host) {
		return skyport.Errorf(skyport.CodeInvalid, "%q is not the host of a registry", skyport.Abbreviate(host, 80))
	}
	dir := e.certificates(host)
	path := filepath.Join(dir, "ca.crt")
	if there, err := os.ReadFile(path); err == nil && bytes.Equal(bytes.TrimSpace(there), bytes.TrimSpace([]byte(login.CA))) {
		return nil
	}
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(path, []byte(login.CA), 0o644)) //nolint:gosec // public, and the engine reads it
	if err == nil {
		return nil
	}
	if !e.rootless && errors.Is(err, os.ErrPermission) {
		err = AsRoot(ctx, 30*time.Second, login.CA, "registry-ca", host)
	}
	if err != nil {
		return skyport.Errorf(skyport.CodeUnsupported, "let the container engine trust the authority of registry %s: %w", host, err).
			WithHint("have the administrator of the node put it into %s", path)
	}
	return nil
}

// certificates is where the engine looks for authorities of a registry.
func (e *engine) certificates(host string) string {
	system, own := "/etc/docker/certs.d", "docker"
	if e.podman {
		system, own = "/etc/containers/certs.d", "containers"
	}
	if !e.rootless {
		return filepath.Join(system, host)
	}
	config, err := os.UserConfigDir()
	if err != nil {
		config = filepath.Join("/", "etc")
	}
	return filepath.Join(config, own, "certs.d", host)
}
