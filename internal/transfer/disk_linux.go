package transfer

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// fileTime sets the modification time of an open file.
func fileTime(f *os.File, t time.Time) error {
	return os.Chtimes(f.Name(), time.Time{}, t) //nolint:wrapcheck // callers do
}

// linkTime sets the modification time of a link itself. Not every file system
// can: then it keeps its own.
func linkTime(path string, t time.Time) {
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{omit, unix.NsecToTimespec(t.UnixNano())}, unix.AT_SYMLINK_NOFOLLOW)
}

// syncFileSystem brings the file system that path is on to the disk.
func syncFileSystem(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return onDisk(err, "syncing", path)
	}
	defer func() { _ = f.Close() }() // only a handle
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return onDisk(err, "syncing the file system of", path)
	}
	return nil
}

// lockFile takes the file for this open handle, without waiting; closing lets go.
func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:wrapcheck // callers do
}

// freeSpace is how much an unprivileged process may still write at path.
func freeSpace(path string) (int64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * st.Bsize, true
}
