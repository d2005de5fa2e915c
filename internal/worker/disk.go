package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/openworkload/skyport"
)

// removeAll removes a tree whose directories the job may have made unwritable.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err //nolint:wrapcheck // names the path
	}
	walkErr := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(path, 0o700) //nolint:gosec // a directory; names the path
		}
		return err
	})
	if err := os.RemoveAll(dir); err != nil {
		return errors.Join(err, walkErr)
	}
	return nil
}

// touch makes an empty file of a run's directory.
func touch(dir, name string) error { return create(filepath.Join(dir, name)) }

func create(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // names the path
	}
	return f.Close() //nolint:wrapcheck // names the path
}

// diskError gives an error of the file system its code.
func diskError(what string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return skyport.Errorf(skyport.CodeNoSpace, "%s: %w", what, err).WithHint("make room on the node")
	}
	return fmt.Errorf("%s: %w", what, err)
}

// within joins a path of the request to dir, unless it is absolute.
func within(dir, path, otherwise string) string {
	if path == "" {
		path = otherwise
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}
