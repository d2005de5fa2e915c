package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

const (
	recordName    = "partition.json"
	recordVersion = 1
)

// record is what lies on disk of a partition: what was asked for and what was
// decided. What its nodes do is read off the processes.
type record struct {
	Version  int                `json:"version"`
	Spec     gate.PartitionSpec `json:"spec"`
	CPUs     int                `json:"cpus"`   // of each node
	Memory   skyport.Bytes      `json:"memory"` // of each node
	Created  time.Time          `json:"created"`
	Failed   string             `json:"failed,omitempty"` // why it was given up
	Deleting bool               `json:"deleting,omitempty"`
}

// write puts the record into the partition's directory so that a crash leaves
// the old one or the new one.
func (r record) write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return failedWrite(err)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("record of partition %s: %w", r.Spec.ID, err)
	}
	f, err := os.CreateTemp(dir, recordName+".*")
	if err != nil {
		return failedWrite(err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, recordName))
	}
	if err == nil {
		err = errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
	}
	if err != nil {
		return failedWrite(errors.Join(err, removeIfThere(f.Name())))
	}
	return nil
}

// readRecord reads the record of a partition; [os.ErrNotExist] when there is none.
func readRecord(dir string) (record, error) {
	var r record
	text, err := os.ReadFile(filepath.Join(dir, recordName))
	if err != nil {
		return r, fmt.Errorf("record: %w", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("record %s: %w", filepath.Join(dir, recordName), err)
	}
	if r.Version > recordVersion {
		return r, skyport.Errorf(skyport.CodeUnsupported, "%s was written by a newer version of Sky Port", dir).
			WithHint("use that version, or another spool")
	}
	return r, nil
}

func failedWrite(err error) error {
	code := skyport.CodeInternal
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		code = skyport.CodeNoSpace
	}
	return skyport.Errorf(code, "partition cannot be written down: %w", err)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
