package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Lock takes the lock of a run's directory, waiting for it. The lock is held
// until the file is closed or the process ends, however it ends.
func Lock(dir string) (*os.File, error) {
	f, err := openLock(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock run %s: %w", filepath.Base(dir), err), f.Close())
		}
	}
}

// TryLock takes the lock if nobody holds it; nil without an error means that a
// shim lives.
func TryLock(dir string) (*os.File, error) {
	f, err := openLock(dir)
	if err != nil {
		return nil, err
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case err == nil:
		return f, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil, f.Close() //nolint:wrapcheck // never fails on a file nobody wrote
	default:
		return nil, errors.Join(fmt.Errorf("lock run %s: %w", filepath.Base(dir), err), f.Close())
	}
}

func openLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock run %s: %w", filepath.Base(dir), err)
	}
	return f, nil
}
