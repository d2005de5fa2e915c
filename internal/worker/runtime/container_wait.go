package runtime

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport/internal/worker/shim"
)

// How long a run waits for an engine: on a node that is still being set up, and
// where an engine is there that does not answer.
const (
	bootTime   = 10 * time.Minute
	answerTime = time.Minute
)

// await returns the engine that answers. A node that has just booted may still
// install one, or start it.
func (c *Container) await(ctx context.Context, progress func(string)) (*engine, error) {
	began := time.Now()
	settled := began // since when the node is set up
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		e, err := c.connect(ctx)
		if err == nil || ctx.Err() != nil {
			return e, err
		}
		patience := time.Duration(0)
		if booting(c.opts.boot) {
			settled = time.Now()
			patience = bootTime - time.Since(began)
		} else if slices.ContainsFunc(c.opts.hosts(), usable) {
			patience = answerTime - time.Since(settled)
		}
		if patience <= 0 {
			return nil, err
		}
		progress("Waiting for the container engine")
		if err := sleep(ctx, min(pause, patience)); err != nil {
			return nil, err
		}
	}
}

// booting says whether the node is still being set up, by what cloud-init and our
// own first steps leave in /run.
func booting(run string) bool {
	cloud, own := filepath.Join(run, "cloud-init"), filepath.Join(run, "skyport")
	switch {
	case shim.Exists(own, "ready"):
		return false // what a run needs is there, whatever cloud-init does besides
	case shim.Exists(run, "skyport"):
		return true
	}
	return shim.Exists(run, "cloud-init") && !shim.Exists(cloud, "result.json") && !shim.Exists(cloud, "disabled")
}

// usable says whether this user may talk to an engine at a host, if one answers there.
func usable(host string) bool {
	path, ok := strings.CutPrefix(host, "unix://")
	return !ok || unix.Access(path, unix.W_OK) == nil
}
