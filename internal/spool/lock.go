package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/pki"
)

// Lock is the right to be the one process of a kind on a spool. It ends with
// [Lock.Close] or with the process.
type Lock struct {
	file    *os.File
	address string // file of the address, "" while none was announced
}

// Lock takes the lock of the name, such as core or gate, or fails at once: the
// error says which process has it. The same process cannot take it twice.
func (l Layout) Lock(name string) (*Lock, error) {
	path := filepath.Join(l.Run(), name+".lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the spool %s for %s: %w", l.Dir, name, err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer func() { _ = file.Close() }() // nothing was written
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock the spool %s for %s: %w", l.Dir, name, err)
		}
		return nil, skyport.Errorf(skyport.CodeConflict, "the spool %s is in use by another %s, %s", l.Dir, name, holder(file)).
			WithHint("stop that process, or use another spool with --spool")
	}
	// The pid is for people only: the lock itself is the kernel's.
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if err := errors.Join(file.Truncate(0), writeAt(file, pid)); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the spool %s for %s: %w", l.Dir, name, err), file.Close())
	}
	return &Lock{file: file}, nil
}

// Close gives the lock and the announced address up.
func (k *Lock) Close() error {
	var err error
	if k.address != "" {
		if err = os.Remove(k.address); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	// The file stays, empty: removing it would let two processes lock two files.
	// Closing alone would not unlock while a child that is just being started
	// has not yet closed what it inherited.
	err = errors.Join(err, k.file.Truncate(0), unix.Flock(int(k.file.Fd()), unix.LOCK_UN), k.file.Close())
	if err != nil {
		return fmt.Errorf("unlock the spool: %w", err)
	}
	return nil
}

func holder(file *os.File) string {
	content, err := io.ReadAll(io.LimitReader(file, 32))
	pid, bad := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || bad != nil {
		return "a process that is just starting"
	}
	return fmt.Sprintf("process %d", pid)
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err //nolint:wrapcheck // the caller says on what
}

// Address is where a running daemon can be reached.
type Address struct {
	URL     string    `json:"url"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// Announce writes where the daemon that holds the lock can be reached, for
// clients on this machine. Close takes it back.
func (k *Lock) Announce(url string) error {
	path := strings.TrimSuffix(k.file.Name(), ".lock") + ".json"
	content, err := json.Marshal(Address{URL: url, PID: os.Getpid(), Started: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return fmt.Errorf("announce %s: %w", url, err)
	}
	if err := pki.Replace(path, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("announce %s: %w", url, err)
	}
	k.address = path
	return nil
}

// Announced reads where the daemon of the name can be reached. The error
// matches [fs.ErrNotExist] when none has said. After a crash it is the address
// of the daemon that is gone, until the next one starts.
func (l Layout) Announced(name string) (Address, error) {
	var address Address
	content, err := os.ReadFile(filepath.Join(l.Run(), name+".json"))
	if err != nil {
		return address, fmt.Errorf("find the address of %s: %w", name, err)
	}
	if err := json.Unmarshal(content, &address); err != nil {
		return address, fmt.Errorf("find the address of %s: %w", name, err)
	}
	return address, nil
}

// CoreURL is where core can be reached from this machine: where it announced
// itself, else where the configuration makes it listen.
func (s *Spool) CoreURL() string {
	if address, err := s.Announced("core"); err == nil && address.URL != "" {
		return address.URL
	}
	return URLOf(s.Config.Core.Listen)
}

// GateURL is where core reaches the gate: as configured, else where a gate of
// this spool announced itself, else where the configuration makes it listen.
func (s *Spool) GateURL() string {
	if s.Config.Gate.URL != "" {
		return s.Config.Gate.URL
	}
	if address, err := s.Announced("gate"); err == nil && address.URL != "" {
		return address.URL
	}
	return URLOf(s.Config.Gate.Listen)
}
