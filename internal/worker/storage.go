package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/runtime"
	"github.com/openworkload/skyport/internal/worker/shim"
)

const (
	storageFile = "storage.json" // what opens the storage, until it is mounted
	storageEnv  = "SWM_JOB_STORAGE"

	// mountTime has room for the installation of what mounts.
	mountTime, unmountTime = 15 * time.Minute, 2 * time.Minute
)

// storageName is what can be the name of a directory, everywhere.
var storageName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func checkStorage(spec protocol.RunSpec) error {
	name := spec.Request.Storage
	if name != "" && !storageName.MatchString(name) || spec.Storage != nil && spec.Storage.Name != name {
		return skyport.Errorf(skyport.CodeInvalid, "%q is not the name of a storage that can be mounted", skyport.Abbreviate(name, 80)).
			WithHint("it has small letters, digits and dashes, at most 63")
	}
	return nil
}

// mountStorage mounts the storage that the job asks for, or sees to it that a
// worker before this one has.
func (r *run) mountStorage(ctx context.Context) error {
	name := r.spec.Request.Storage
	if name == "" {
		return nil
	}
	var s protocol.Storage
	err := shim.Read(r.dir, storageFile, &s)
	dir := runtime.StorageDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		if mounted(dir) {
			return nil
		}
		return skyport.Errorf(skyport.CodeConflict, "the storage %s is not mounted any more, and what opens it is forgotten", name).
			WithHint("requeue the job")
	}
	if err != nil {
		return err
	}
	r.change(func(status *protocol.RunStatus) { status.Details = "mounting the storage " + name })
	r.w.storage.Lock()
	defer r.w.storage.Unlock()
	text := fmt.Sprintf("account %s\ncontainer %s\nendpoint %s\nsas %s\n", s.Account, s.Container, s.Endpoint, s.SAS)
	if err := runtime.AsRoot(ctx, mountTime, text, "mount-storage", name); err != nil {
		return skyport.Errorf(skyport.CodeUnsupported, "mount the storage %s on node %s: %w", name, r.w.opts.Node, err)
	}
	return nil
}

// mounted says whether something is mounted on a directory.
func mounted(dir string) bool {
	device := func(path string) (uint64, bool) {
		info, err := os.Stat(path)
		if err != nil {
			return 0, false
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		return uint64(stat.Dev), ok //nolint:unconvert // not everywhere the same type
	}
	own, ok := device(dir)
	above, there := device(filepath.Dir(dir))
	return ok && there && own != above
}

// releaseStorage unmounts what no other run uses.
func (r *run) releaseStorage(ctx context.Context) {
	name := r.spec.Request.Storage
	if name == "" {
		return
	}
	r.w.storage.Lock()
	defer r.w.storage.Unlock()
	for _, other := range r.w.each() {
		if other != r && other.spec.Request.Storage == name && !other.isRemoved() {
			return
		}
	}
	if err := runtime.AsRoot(ctx, unmountTime, "", "unmount-storage", name); err != nil {
		r.log.Warn("a storage stays mounted", "storage", name, "error", err)
	}
}

func (r *run) isRemoved() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removed
}
