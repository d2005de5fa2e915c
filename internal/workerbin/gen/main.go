// Command gen builds the workers that skyport carries, for every architecture,
// and compresses them into internal/workerbin/dist. It is run from the top of
// the repository:
//
//	go run ./internal/workerbin/gen [-version V] [-arch amd64,arm64]
//
// The result depends on the sources, the version and the Go release only. What
// is up to date is left alone.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxCompressed is what a worker may weigh: a laptop's uplink is slow.
const maxCompressed = 5_000_000

func main() {
	version := flag.String("version", "development", "version that the workers say they are")
	archs := flag.String("arch", "amd64,arm64", "architectures, separated by commas")
	dir := flag.String("dir", filepath.FromSlash("internal/workerbin/dist"), "where they go")
	flag.Parse()
	for arch := range strings.SplitSeq(*archs, ",") {
		if err := generate(*dir, arch, *version); err != nil {
			fmt.Fprintf(os.Stderr, "build the worker for linux/%s: %v\n", arch, err)
			os.Exit(1)
		}
	}
}

func generate(dir, arch, version string) error {
	binary, err := build(arch, version)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(binary)
	hash := hex.EncodeToString(sum[:]) + "\n"
	name := filepath.Join(dir, "skyport-worker-linux-"+arch)
	if upToDate(name, hash) {
		return nil
	}
	// One thread: with more, the result would depend on their number.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		return err
	}
	packed := encoder.EncodeAll(binary, nil)
	if len(packed) >= maxCompressed {
		return fmt.Errorf("%d bytes compressed are more than %d: find out what came in with go version -m", len(packed), maxCompressed)
	}
	// The hash last: without it, nothing is up to date.
	return errors.Join(remove(name+".sum"), write(name+".zst", packed), write(name+".sum", []byte(hash)))
}

func build(arch, version string) ([]byte, error) {
	temp, err := os.MkdirTemp("", "skyport-worker-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(temp) }() // a leftover does no harm
	out := filepath.Join(temp, "skyport-worker")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -X main.version="+version, //nolint:gosec // our own flags
		"-o", out, "./cmd/skyport-worker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, said.String())
	}
	return os.ReadFile(out)
}

func upToDate(name, hash string) bool {
	have, err := os.ReadFile(name + ".sum")
	if err != nil || string(have) != hash {
		return false
	}
	_, err = os.Stat(name + ".zst")
	return err == nil
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func write(path string, data []byte) error {
	temp := path + ".tmp"
	return errors.Join(os.WriteFile(temp, data, 0o644), os.Rename(temp, path)) //nolint:gosec // not secret
}
