package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/openworkload/skyport"
)

// Version is the version of the layout that this program makes and knows.
const Version = 1

// Spool is an open spool.
type Spool struct {
	Layout
	Config Config
	// Owner is the id of this spool's core. It tags everything that core makes
	// at sites, so it is not a setting: two cores with one id would remove each
	// other's partitions.
	Owner string
}

// Open reads the spool in the directory and changes nothing. It refuses, with
// a hint, what is no spool, what a newer version has made, and a configuration
// with a mistake.
func Open(dir string) (*Spool, error) {
	layout := Layout{dir}
	if err := checkVersion(layout); err != nil {
		return nil, err
	}
	owner, err := readOwner(layout)
	if err != nil {
		return nil, err
	}
	config, err := LoadConfig(layout.ConfigFile())
	if err != nil {
		return nil, err
	}
	return &Spool{Layout: layout, Config: config, Owner: owner}, nil
}

func checkVersion(l Layout) error {
	content, err := os.ReadFile(l.VersionFile())
	if errors.Is(err, fs.ErrNotExist) {
		return notSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	version, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || version < 1 {
		return skyport.Errorf(skyport.CodeInvalid, "open spool %s: the file %s does not hold a version", l.Dir, l.VersionFile()).
			WithHint("it should hold the number %d", Version)
	}
	if version > Version {
		return skyport.Errorf(skyport.CodeUnsupported, "the spool %s is of version %d, made by a newer skyport: this one knows up to version %d",
			l.Dir, version, Version).WithHint("use the newer skyport, or another spool with --spool; nothing was changed")
	}
	return nil
}

func readOwner(l Layout) (string, error) {
	content, err := os.ReadFile(l.OwnerFile())
	if errors.Is(err, fs.ErrNotExist) {
		return "", notSetUp(l)
	}
	if err != nil {
		return "", fmt.Errorf("open spool: %w", err)
	}
	id, err := skyport.ParseUserID(strings.TrimSpace(string(content)))
	if err != nil {
		return "", skyport.Errorf(skyport.CodeInvalid, "open spool %s: the file %s is damaged: %w", l.Dir, l.OwnerFile(), err)
	}
	return string(id), nil
}

func notSetUp(l Layout) error {
	return skyport.Errorf(skyport.CodeNotFound, "there is no complete spool in %s", l.Dir).
		WithHint("run skyport setup, or name another spool with --spool or SWM_SPOOL")
}
