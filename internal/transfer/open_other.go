//go:build !linux

package transfer

import "os"

const openDirectory = 0

func openFile(root, path string, flags int) (*os.File, error) { return openBelow(root, path, flags) }
