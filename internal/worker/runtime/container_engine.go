package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
)

// engine is a container engine of this node that answers.
type engine struct {
	api  *client.Client
	host string // such as unix:///var/run/docker.sock
	info system.Info
	// podman and rootless say whose engine it is: they differ in whom a user of
	// the container is on the node.
	podman, rootless bool
}

// engineTime is how long an engine may take for an answer that costs it nothing.
const engineTime = 5 * time.Second

// openTime is how long one may take to tell what it can do. Podman looks at its
// storage and runtime each time: on a small node that is busy this takes seconds.
const openTime = 20 * time.Second

// findEngine returns the first engine that answers at one of the hosts.
func findEngine(ctx context.Context, hosts []string) (*engine, error) {
	var failed []string
	for _, host := range hosts {
		e, err := openEngine(ctx, host)
		if err == nil {
			return e, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err() //nolint:wrapcheck // the caller's own
		}
		failed = append(failed, err.Error())
	}
	err := skyport.Errorf(skyport.CodeNoEngine, "no container engine answers on this node")
	if len(failed) == 0 {
		return nil, err.WithHint("install Docker or Podman there, or leave out container-image")
	}
	err.Message += ": " + strings.Join(failed, "; ")
	return nil, err.WithHint("start Docker or Podman there, and let the user %s use it", userName())
}

// openEngine connects to one engine and asks what it can do.
func openEngine(ctx context.Context, host string) (*engine, error) {
	api, err := client.New(client.WithHost(host))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", host, err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	// Whose engine it is is no guess: much depends on it.
	version, err := api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", host, plain(err)), api.Close())
	}
	info, err := api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", host, plain(err)), api.Close())
	}
	e := &engine{api: api, host: host, info: info.Info}
	e.rootless = slices.ContainsFunc(e.info.SecurityOptions, func(s string) bool { return strings.Contains(s, "rootless") })
	e.podman = slices.ContainsFunc(version.Components, func(c system.ComponentVersion) bool { return strings.HasPrefix(c.Name, "Podman") })
	if e.podman && !e.rootless {
		e.info.CPUCfsQuota = e.info.CPUCfsQuota || controlled("/sys/fs/cgroup", "cpu")
	}
	return e, nil
}

// controlled says whether a controller of cgroups v2 is there: Podman says of
// limits of processors that it cannot keep them, there too where it does.
func controlled(root, controller string) bool {
	text, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(text)), controller)
}

// engineHosts lists where an engine may listen, the likeliest first.
func engineHosts() []string {
	var sockets []string
	if host := os.Getenv(client.EnvOverrideHost); host != "" {
		return []string{host}
	}
	sockets = append(sockets, "/var/run/docker.sock")
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(os.Getuid())} {
		if dir != "" {
			sockets = append(sockets, filepath.Join(dir, "docker.sock"), filepath.Join(dir, "podman", "podman.sock"))
		}
	}
	sockets = append(sockets, "/run/podman/podman.sock")
	var hosts []string
	for _, path := range sockets {
		host := "unix://" + path
		if _, err := os.Stat(path); err == nil && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// user is whom the script is inside the container, so that it is the worker's
// own user on the node.
func (e *engine) user() string {
	if e.rootless && !e.podman {
		return "0:0" // rootless Docker maps its own user to root
	}
	return strconv.Itoa(os.Getuid()) + ":" + strconv.Itoa(os.Getgid())
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

// plain takes from an error of the client what says nothing to people.
func plain(err error) error {
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), "Error response from daemon: ")
	return &plainError{text: strings.TrimSpace(text), cause: err}
}

type plainError struct {
	text  string
	cause error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.cause }

// away says whether an error means that the engine does not answer, rather than
// that it refuses: nothing is known of what was asked for.
func away(err error) bool {
	if err == nil {
		return false
	}
	if client.IsErrConnectionFailed(err) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	text := err.Error()
	for _, sign := range []string{"EOF", "connection reset", "connection refused", "broken pipe", "Cannot connect", "no such file or directory: dial"} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}
