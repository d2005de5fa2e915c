package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

const alive, removed = "partition.json", "removed.json"

// record is all that is kept of a partition.
type record struct {
	Spec    gate.PartitionSpec // without the user data, which holds private keys
	Created time.Time
	Nodes   []skyport.Node
	Started bool

	removed bool
}

// path cannot lead out of the directory, whatever the id.
func (p *provider) path(id skyport.PartitionID) string {
	return filepath.Join(p.dir, filepath.Base(string(id)))
}

// node is where the node lives.
func (p *provider) node(id skyport.PartitionID) string { return filepath.Join(p.path(id), "node") }

func (p *provider) read(id skyport.PartitionID) (r record, err error) {
	text, err := os.ReadFile(filepath.Join(p.path(id), alive))
	if errors.Is(err, os.ErrNotExist) {
		r.removed = true
		text, err = os.ReadFile(filepath.Join(p.path(id), removed))
	}
	if errors.Is(err, os.ErrNotExist) {
		err = gate.ErrNotFound
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return r, fmt.Errorf("partition %s: %w", id, err)
	}
	return r, nil
}

func (p *provider) write(r record) error {
	text, err := json.Marshal(r)
	name := filepath.Join(p.path(r.Spec.ID), alive)
	if err == nil {
		err = os.WriteFile(name+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return fmt.Errorf("partition %s: %w", r.Spec.ID, err)
	}
	return nil
}

const serverConfig = `ListenAddress %s:2222
HostKey %[2]s/host_key
AuthorizedKeysFile %[2]s/authorized_keys
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
`

// prepare writes all that the node needs, and the record last.
func (p *provider) prepare(ctx context.Context, spec gate.PartitionSpec) (record, error) {
	me, err := user.Current()
	if err != nil {
		return record{}, fmt.Errorf("partition %s: %w", spec.ID, err)
	}
	dir := p.node(spec.ID)
	place := fnv.New32a()
	_, _ = place.Write([]byte(spec.ID)) // never fails
	address := fmt.Sprintf("127.%d.%d.%d", 64+place.Sum32()%128, (place.Sum32()>>8)%256, 1+(place.Sum32()>>16)%250)
	if err = os.RemoveAll(dir); err == nil { // of a creation that was cut off
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "authorized_keys"), []byte(strings.Join(spec.Keys, "\n")+"\n"), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "sshd_config"), fmt.Appendf(nil, serverConfig, address, dir), 0o600)
	}
	if err == nil {
		err = run(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", filepath.Join(dir, "host_key"))
	}
	public, err2 := os.ReadFile(filepath.Join(dir, "host_key.pub"))
	if err := errors.Join(err, err2); err != nil {
		return record{}, fmt.Errorf("partition %s: %w", spec.ID, err)
	}
	spec.UserData = nil // nothing boots here
	r := record{Spec: spec, Created: time.Now().UTC().Truncate(time.Second), Nodes: []skyport.Node{{
		Name: spec.Nodes[0], Role: skyport.RoleMain, Address: address, HostKey: strings.TrimSpace(string(public)),
		Endpoint: "ssh://" + me.Username + "@" + address + ":2222" + dir,
	}}}
	return r, p.write(r)
}

// start starts the SSH server, which goes on when the gate ends.
func (p *provider) start(ctx context.Context, r record) error {
	dir := p.node(r.Spec.ID)
	if len(running(dir)) == 0 {
		if err := run(ctx, "/usr/sbin/sshd", "-f", filepath.Join(dir, "sshd_config")); err != nil {
			return fmt.Errorf("partition %s: %w", r.Spec.ID, err)
		}
	}
	r.Started = true
	return p.write(r)
}

func run(ctx context.Context, program string, args ...string) error {
	if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil { //nolint:gosec // our own words
		return fmt.Errorf("%s: %w: %s", program, err, skyport.Abbreviate(strings.TrimSpace(string(out)), 300))
	}
	return nil
}

func (p *provider) status(r record) gate.PartitionStatus {
	s := gate.PartitionStatus{
		ID: r.Spec.ID, Owner: r.Spec.Owner, Site: site, State: gate.StateUp, Nodes: r.Nodes, Lease: r.Spec.Lease, Created: r.Created,
	}
	switch {
	case r.removed:
		s.State = gate.StateDeleting
	case !r.Started:
		s.State = gate.StateCreating
	case len(running(p.node(r.Spec.ID))) == 0:
		s.State, s.Details = gate.StateFailed, "its SSH server does not run any more"
	}
	return s
}

// running finds what runs from a directory, by its program, by where it works
// and by the SSH server's argument, and what that has started.
func running(dir string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	parents := map[int]int{}
	found := map[int]bool{}
	for _, proc := range all {
		stat, err := os.ReadFile(filepath.Join(proc, "stat"))
		var pid, parent int
		var state string
		_, rest, _ := strings.Cut(string(stat), ") ")
		if _, wrong := fmt.Sscan(filepath.Base(proc), &pid); err != nil || wrong != nil || pid == os.Getpid() {
			continue
		}
		if n, _ := fmt.Sscan(rest, &state, &parent); n != 2 || state == "Z" {
			continue
		}
		parents[pid] = parent
		// What cannot be read belongs to somebody else.
		program, _ := os.Readlink(filepath.Join(proc, "exe"))
		works, _ := os.Readlink(filepath.Join(proc, "cwd"))
		words, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		found[pid] = strings.HasPrefix(program, dir+"/") || strings.HasPrefix(works+"/", dir+"/") ||
			strings.Contains(string(words), "sshd") && strings.Contains(string(words), dir+"/")
	}
	for more := true; more; {
		more = false
		for pid, parent := range parents {
			if found[parent] && !found[pid] {
				found[pid], more = true, true
			}
		}
	}
	for pid, is := range found {
		if is {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill ends all that runs from a directory, and sees it gone.
func kill(ctx context.Context, dir string) error {
	for pids := running(dir); len(pids) > 0; pids = running(dir) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already, or it is told below
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", pids[0], ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}
