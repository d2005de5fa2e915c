package transfer

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// openBelow opens a file below root without ever leaving it, on any system.
func openBelow(root, path string, flags int) (*os.File, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("opening the root of the tree: %w", err)
	}
	defer func() { _ = r.Close() }() // only a handle
	f, err := r.OpenFile(filepath.Join(".", path), flags|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a file of the tree: %w", err)
	}
	return f, nil
}
