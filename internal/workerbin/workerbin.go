// Package workerbin holds the workers that skyport carries: the binaries of
// skyport-worker for each architecture that nodes have, compressed, embedded
// when skyport is built.
//
// A skyport that was built by a bare "go build" or "go install" carries none,
// since they are made by "make build"; everything here then fails with
// CodeUnsupported and says so. All functions may be called at the same time,
// also by several processes.
package workerbin

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/openworkload/skyport"
)

//go:embed all:dist
var dist embed.FS

// Archs are the architectures that workers are built for, in Go's spelling.
func Archs() []string { return []string{"amd64", "arm64"} }

// Open returns the content of the worker binary for an architecture.
func Open(arch string) (io.ReadCloser, error) {
	packed, err := Compressed(arch)
	if err != nil {
		return nil, err
	}
	reader, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("open the worker for %s: %w", arch, err)
	}
	return reader.IOReadCloser(), nil
}

// Compressed returns the worker binary for an architecture as one zstd frame.
func Compressed(arch string) ([]byte, error) { return carried(arch, ".zst") }

// Gzip returns the worker binary for an architecture compressed by gzip: larger,
// but every node can unpack it. It is made when it is first asked for.
func Gzip(arch string) ([]byte, error) {
	content, err := Open(arch)
	if err != nil {
		return nil, err
	}
	defer func() { _ = content.Close() }() // of a reader of memory
	gzipMu.Lock()
	defer gzipMu.Unlock()
	if packed, ok := gzipped[arch]; ok {
		return packed, nil
	}
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	if _, err := io.Copy(writer, content); err != nil {
		return nil, fmt.Errorf("compress the worker for %s: %w", arch, err)
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("compress the worker for %s: %w", arch, err)
	}
	gzipped[arch] = packed.Bytes()
	return packed.Bytes(), nil
}

// gzipped is what Gzip made.
var (
	gzipMu  sync.Mutex
	gzipped = map[string][]byte{}
)

// Hash returns the SHA-256 of the worker binary (not of its compressed form),
// in hex: every node has a tool that can check it.
func Hash(arch string) (string, error) {
	sum, err := carried(arch, ".sum")
	return strings.TrimSpace(string(sum)), err
}

func carried(arch, suffix string) ([]byte, error) {
	data, err := dist.ReadFile("dist/skyport-worker-linux-" + arch + suffix)
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeUnsupported, "this skyport was built without worker binaries (linux/%s)",
			skyport.Abbreviate(arch, 40)).WithHint("use make build")
	}
	return data, nil
}

// installed remembers what this process has verified.
var installed sync.Map

// Install puts the worker binary into dir, unless it is there, and returns its
// path. The name carries the hash, so versions live side by side and all nodes
// of a machine share one file. The content is verified; the file appears by a
// rename.
func Install(dir, arch string) (string, error) {
	hash, err := Hash(arch)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "skyport-worker-"+hash[:min(16, len(hash))])
	if _, err := os.Stat(path); err == nil {
		if _, ok := installed.Load(path); ok || verify(path, hash) == nil {
			installed.Store(path, struct{}{})
			return path, nil
		}
	}
	if err := install(path, arch, hash); err != nil {
		return "", fmt.Errorf("install the worker in %s: %w", dir, err)
	}
	installed.Store(path, struct{}{})
	return path, nil
}

func install(path, arch, hash string) error {
	content, err := Open(arch)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }() // of a reader of memory
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err //nolint:wrapcheck // Install wraps
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".skyport-worker-")
	if err != nil {
		return err //nolint:wrapcheck // Install wraps
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(temp, sum), content)
	if got := hex.EncodeToString(sum.Sum(nil)); err == nil && got != hash {
		err = fmt.Errorf("the content has hash %s, not %s", got, hash)
	}
	err = errors.Join(err, temp.Chmod(0o700), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

func verify(path, hash string) error {
	f, err := os.Open(path)
	if err != nil {
		return err //nolint:wrapcheck // only whether counts
	}
	defer func() { _ = f.Close() }() // was only read
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err //nolint:wrapcheck // only whether counts
	}
	if hex.EncodeToString(sum.Sum(nil)) != hash {
		return errors.New("another content")
	}
	return nil
}
