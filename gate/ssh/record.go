package ssh

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

const recordVersion = 1

// record is what is kept of a partition, in the gate's directory and, within the
// claim, on each of its hosts.
type record struct {
	Version  int                `json:"version"`
	Spec     gate.PartitionSpec `json:"spec"`  // without user data
	Hosts    []string           `json:"hosts"` // in the order of the nodes
	Created  time.Time          `json:"created"`
	Settled  bool               `json:"settled,omitempty"` // all hosts were claimed
	Deleting bool               `json:"deleting,omitempty"`
}

// claim is what a partition leaves on each host that it has. Its first keys are
// read by the script on the host, in this order.
type claim struct {
	Partition   skyport.PartitionID `json:"partition"`
	Lease       int64               `json:"lease"` // as it was at first; the file "lease" moves
	NodeName    string              `json:"node"`
	Host        string              `json:"host"`
	Index       int                 `json:"index"` // of the node
	Fingerprint string              `json:"fingerprint"`
	Record      record              `json:"record"`
}

func (r *record) claim(node int) (string, error) {
	c := claim{
		Partition: r.Spec.ID, Lease: r.Spec.Lease.Unix(), NodeName: r.Spec.Nodes[node],
		Host: r.Hosts[node], Index: node, Fingerprint: r.Spec.Fingerprint(), Record: *r,
	}
	text, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("claim of partition %s: %w", r.Spec.ID, err)
	}
	return string(text), nil
}

var nodePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// checkSpec refuses what no host could take, and returns the keys as they go
// into authorized_keys.
func checkSpec(spec *gate.PartitionSpec) (keys []string, err error) {
	if _, err := skyport.ParsePartitionID(string(spec.ID)); err != nil {
		return nil, permanent(skyport.CodeInvalid, "%v", err)
	}
	if len(spec.Nodes) == 0 {
		return nil, permanent(skyport.CodeInvalid, "a partition needs a node")
	}
	names := map[string]bool{}
	for _, name := range spec.Nodes {
		if !nodePattern.MatchString(name) || names[name] {
			return nil, permanent(skyport.CodeInvalid, "node name %q is not usable", skyport.Abbreviate(name, 70))
		}
		names[name] = true
	}
	if spec.Lease.Unix() <= 0 {
		return nil, permanent(skyport.CodeInvalid, "a partition on hosts needs a lease")
	}
	for i, line := range spec.Keys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, permanent(skyport.CodeInvalid, "key %d of partition %s: %v", i, spec.ID, err)
		}
		keys = append(keys, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))))
	}
	return keys, nil
}

// journal is the gate's directory of records.
type journal string

func (j journal) path(id skyport.PartitionID) string {
	return filepath.Join(string(j), string(id)+".json")
}

func (j journal) write(r record) error {
	return writeJSON(j.path(r.Spec.ID), r)
}

func (j journal) remove(id skyport.PartitionID) error {
	if err := os.Remove(j.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record of partition %s: %w", id, err)
	}
	return nil
}

// load reads all records. One that cannot be read is an error: its hosts would
// be forgotten.
func (j journal) load() ([]record, error) {
	entries, err := os.ReadDir(string(j))
	if err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	var all []record
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if _, err := skyport.ParsePartitionID(name); !ok || err != nil {
			continue
		}
		var r record
		path := filepath.Join(string(j), e.Name())
		if err := readJSON(path, &r); err != nil {
			return nil, err
		}
		if r.Version > recordVersion || string(r.Spec.ID) != name || len(r.Hosts) != len(r.Spec.Nodes) {
			return nil, skyport.Errorf(skyport.CodeUnsupported, "%s is of another version of Sky Port", path)
		}
		all = append(all, r)
	}
	return all, nil
}

// writeJSON replaces a file whole, or not.
func writeJSON(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(file.Name())))
	}
	return nil
}

func readJSON(path string, value any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// permanent is an error that trying again cannot mend.
func permanent(code skyport.Code, format string, args ...any) error {
	err := skyport.Errorf(code, format, args...)
	err.Cause = gate.ErrPermanent
	return err
}
