package transfer

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const openDirectory = unix.O_DIRECTORY

// openFile opens a file below root, which has no links in it, and follows none
// on the way: a directory that is swapped for a link cannot lead it elsewhere.
func openFile(root, path string, flags int) (*os.File, error) {
	full := filepath.Join(root, path)
	fd, err := unix.Openat2(unix.AT_FDCWD, full, &unix.OpenHow{
		// Not blocking, lest a pipe that took the place of a file holds us.
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY),
		Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return openBelow(root, path, flags) // an old kernel, or a sandbox that does not know the call
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: full, Err: err}
	}
	return os.NewFile(uintptr(fd), full), nil
}
