//go:build !linux

package transfer

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func fileTime(f *os.File, t time.Time) error { return os.Chtimes(f.Name(), time.Time{}, t) }

func linkTime(string, time.Time) {}

func syncFileSystem(path string) error {
	unix.Sync()
	return nil
}

func lockFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

func freeSpace(string) (int64, bool) { return 0, false }
