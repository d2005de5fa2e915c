package seal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
)

// Open returns the sealer of the key in the file, which is made when it is not
// there; its directory must be. A file that others can read or that belongs to
// somebody else, and one that holds no key, is refused: it is never written over.
func Open(path string) (*Sealer, error) {
	key, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := write(path); err != nil {
			return nil, fmt.Errorf("make the sealing key: %w", err)
		}
		// Whoever was first, its key is the one in the file.
		key, err = read(path)
	}
	if err != nil {
		return nil, err
	}
	return New(key)
}

func read(path string) ([]byte, error) {
	// Not following links and not waiting for a pipe: it must be the file itself.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, skyport.Errorf(skyport.CodeConflict, "the sealing key %s is a symbolic link", path).
			WithHint("put the file itself there")
	}
	if err != nil {
		return nil, fmt.Errorf("read the sealing key: %w", err)
	}
	defer func() { _ = file.Close() }() // read only: nothing can be lost
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the sealing key: %w", err)
	}
	if err := check(path, info); err != nil {
		return nil, err
	}
	key, err := io.ReadAll(io.LimitReader(file, keySize+1))
	if err != nil {
		return nil, fmt.Errorf("read the sealing key %s: %w", path, err)
	}
	if len(key) != keySize {
		return nil, skyport.Errorf(skyport.CodeConflict, "the sealing key %s does not hold a key: it must have %d bytes, and no more", path, keySize).
			WithHint("restore it from a backup; without it the keys of partitions and the credentials in the database cannot be opened")
	}
	return key, nil
}

func check(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return skyport.Errorf(skyport.CodeConflict, "the sealing key %s is no regular file", path)
	}
	if mode := info.Mode().Perm(); mode&^0o600 != 0 {
		return skyport.Errorf(skyport.CodeConflict, "the sealing key %s has mode %04o: others may read or change it", path, mode).
			WithHint("find out who could read it, then: chmod 600 %s", path)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(stat.Uid) != os.Geteuid() {
		return skyport.Errorf(skyport.CodeConflict, "the sealing key %s belongs to user %d, and this is user %d", path, stat.Uid, os.Geteuid()).
			WithHint("run skyport as the user that the spool belongs to")
	}
	return nil
}

// write makes the file with a new key, whole and durable or not at all, and
// leaves one that is there alone.
func write(path string) error {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails: the program ends when there is no randomness
	dir := filepath.Dir(path)
	// The prefix is the one that skyport setup tidies up after a crash.
	temp, err := os.CreateTemp(dir, ".new-"+filepath.Base(path)+"-*") // of mode 0600
	if err != nil {
		return err //nolint:wrapcheck // Open says what for, and the error on what
	}
	defer func() { _ = os.Remove(temp.Name()) }() // it has another name by then, or was given up
	_, err = temp.Write(key)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, never takes the place of a file that is there.
	if err := os.Link(temp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err //nolint:wrapcheck // as above
	}
	d, err := os.Open(dir)
	if err != nil {
		return err //nolint:wrapcheck // as above
	}
	return errors.Join(d.Sync(), d.Close())
}
