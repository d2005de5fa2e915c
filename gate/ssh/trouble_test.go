package ssh_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	cryptossh "golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/ssh"
)

// TestWrongHostKey: such a host is not used, and both fingerprints are told.
func TestWrongHostKey(t *testing.T) {
	t.Parallel()
	all, key := machines(t, 1)
	o := options(t, key, all...)
	other := keyPair(t, filepath.Join(t.TempDir(), "other"))
	o.Sites[0].Hosts[0].HostKey = other
	p := open(t, o)
	spec := newSpec(t, p, 1)
	err := p.Create(t.Context(), spec)
	if err == nil {
		t.Fatal("a host with another key was used")
	}
	for _, line := range []string{other, all[0].hostKey} {
		public, _, _, _, parseErr := cryptossh.ParseAuthorizedKey([]byte(line))
		if parseErr != nil {
			t.Fatal(parseErr)
		}
		if !strings.Contains(err.Error(), cryptossh.FingerprintSHA256(public)) {
			t.Errorf("%q does not tell %s", err, cryptossh.FingerprintSHA256(public))
		}
	}
	if exists(filepath.Join(all[0].home, ".skyport")) {
		t.Error("the host was touched")
	}
}

// TestConfiguration: what cannot be is refused with what to do.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	line := keyPair(t, filepath.Join(dir, "host"))
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte("# mine\nother,[a.example.org]:2200 "+line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		host ssh.Host
		text string // of the error, "" for none
	}{
		"key":                 {host: ssh.Host{HostKey: line}},
		"line of ssh-keyscan": {host: ssh.Host{HostKey: "[a.example.org]:2200 " + line}},
		"known_hosts":         {host: ssh.Host{HostKey: known}},
		"unknown there":       {host: ssh.Host{HostKey: known, Address: "b.example.org"}, text: "has no key of b.example.org:22"},
		"no host key":         {host: ssh.Host{}, text: "not trusted at first sight"},
		"nonsense":            {host: ssh.Host{HostKey: "ssh-ed25519 nonsense"}, text: "neither a public key nor"},
		"no plain directory":  {host: ssh.Host{HostKey: line, Dir: "/home/$x"}, text: "plain absolute path"},
		"user":                {host: ssh.Host{HostKey: line, User: "-oProxyCommand=x"}, text: "cannot be"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := c.host
			h.Name = "a"
			if h.Address == "" {
				h.Address = "a.example.org:2200"
			}
			p, err := ssh.New(ssh.Options{Dir: t.TempDir(), Sites: []ssh.Site{{Name: "lab", Hosts: []ssh.Host{h}}}})
			if err == nil {
				err = p.Close()
			}
			if c.text == "" && err != nil || c.text != "" && (err == nil || !strings.Contains(err.Error(), c.text)) {
				t.Errorf("got %v, want %q", err, c.text)
			}
			if strings.Contains(c.text, "first sight") && !strings.Contains(skyport.HintOf(err), "ssh-keyscan") {
				t.Errorf("the hint is %q", skyport.HintOf(err))
			}
		})
	}
}

// TestKeyFileOfOthers: a key that others can read is not used.
func TestKeyFileOfOthers(t *testing.T) {
	t.Parallel()
	m, o, _ := one(t)
	open1 := filepath.Join(m.dir, "open")
	keyPair(t, open1)
	if err := os.Chmod(open1, 0o644); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	o.Dir, o.Sites[0].Hosts[0].KeyFile = t.TempDir(), open1
	p := open(t, o)
	err := p.Create(t.Context(), newSpec(t, p, 1))
	if err == nil || !strings.Contains(err.Error(), "others may read the key file "+open1) {
		t.Errorf("got %v", err)
	}
}

// TestGatesCompete: of two gates that want all hosts at once one has them all,
// the other none, and it learns who has them.
func TestGatesCompete(t *testing.T) {
	t.Parallel()
	all, key := machines(t, 3)
	gates := []*ssh.Provider{open(t, options(t, key, all...)), open(t, options(t, key, all...))}
	for range 3 {
		specs := []gate.PartitionSpec{newSpec(t, gates[0], 3), newSpec(t, gates[1], 3)}
		errs := make([]error, 2)
		var both sync.WaitGroup
		for i := range gates {
			both.Go(func() { errs[i] = gates[i].Create(t.Context(), specs[i]) })
		}
		both.Wait()
		if errs[0] == nil && errs[1] == nil {
			t.Fatal("both have the hosts")
		}
		winner := 0
		if errs[0] != nil {
			winner = 1
		}
		if errs[winner] != nil {
			// Each can hinder the other; the next try decides.
			t.Logf("none has them: %v", errors.Join(errs...))
			until(t, "one has them", func() error { return gates[winner].Create(t.Context(), specs[winner]) })
		}
		status, err := gates[winner].Status(t.Context(), "lab", specs[winner].ID)
		if err != nil || status.State != gate.StateUp {
			t.Fatalf("the winner has %+v, %v", status, err)
		}
		loser := 1 - winner
		until(t, "the loser has given back", func() error {
			_, err := gates[loser].Status(t.Context(), "lab", specs[loser].ID)
			if errors.Is(err, gate.ErrNotFound) {
				return nil
			}
			return errors.Join(err, errors.New("something is there"))
		})
		err = gates[loser].Create(t.Context(), specs[loser])
		if skyport.CodeOf(err) != skyport.CodeUnavailable || !strings.Contains(err.Error(), string(specs[winner].ID)) {
			t.Errorf("the loser is told %v", err)
		}
		remove(t, gates[winner], specs[winner])
	}
}

// TestFullSite: hosts that are taken are told as a refusal, so that core looks
// elsewhere; those that are being given back are waited for.
func TestFullSite(t *testing.T) {
	t.Parallel()
	_, _, p := one(t)
	first, second := newSpec(t, p, 1), newSpec(t, p, 1)
	create(t, p, first)
	err := p.Create(t.Context(), second)
	if !errors.Is(err, gate.ErrPermanent) || skyport.CodeOf(err) != skyport.CodeUnavailable || !strings.Contains(err.Error(), string(first.ID)) {
		t.Errorf("got %v", err)
	}
	if err := p.Delete(t.Context(), "lab", first.ID); err != nil {
		t.Fatal(err)
	}
	create(t, p, second)
	awaitGone(t, p, first)
	remove(t, p, second)
}

// TestHostAway: a host that does not answer holds its partition up, then fails
// it; its removal goes on until the host is back, also with another gate.
func TestHostAway(t *testing.T) {
	t.Parallel()
	all, key := machines(t, 2)
	o := options(t, key, all...)
	o.Away = time.Second
	p := open(t, o)
	spec := newSpec(t, p, 2)
	create(t, p, spec)
	all[1].stop()
	var status gate.PartitionStatus
	for _, state := range []gate.State{gate.StateBooting, gate.StateFailed} {
		until(t, "the loss is noticed", func() error {
			var err error
			status, err = p.Status(t.Context(), "lab", spec.ID)
			if err == nil && status.State != state && !(state == gate.StateBooting && status.State == gate.StateFailed) {
				err = errors.New("it is " + string(status.State))
			}
			return err
		})
	}
	if !strings.Contains(status.Details, "host b") {
		t.Errorf("details %q", status.Details)
	}
	deleting := func() {
		t.Helper()
		until(t, "the removal tells why it takes long", func() error {
			status, err := p.Status(t.Context(), "lab", spec.ID)
			if err == nil && (status.State != gate.StateDeleting || !strings.Contains(status.Details, "host b")) {
				err = errors.New(string(status.State) + " " + status.Details)
			}
			return err
		})
	}
	if err := p.Delete(t.Context(), "lab", spec.ID); err != nil {
		t.Fatal(err)
	}
	deleting()
	// The other host is free already.
	next := newSpec(t, p, 1)
	create(t, p, next)
	remove(t, p, next)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = open(t, o)
	deleting()
	all[1].start(t, "")
	awaitGone(t, p, spec)
	for _, m := range all {
		if exists(filepath.Join(m.home, ".skyport")) {
			t.Errorf("host %s has ~/.skyport", m.name)
		}
	}
}

// TestLostRecords: the hosts alone tell what is there.
func TestLostRecords(t *testing.T) {
	t.Parallel()
	all, key := machines(t, 2)
	o := options(t, key, all...)
	p := open(t, o)
	spec := newSpec(t, p, 2)
	before := create(t, p, spec)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	o.Dir = t.TempDir()
	p = open(t, o)
	list, err := p.List(t.Context(), "lab", spec.Owner)
	if err != nil || len(list) != 1 || list[0].Nodes[1] != before.Nodes[1] {
		t.Fatalf("listed %+v, %v", list, err)
	}
	remove(t, p, spec)
}

// TestContainersEnd: containers of the partition's worker go, those of others stay.
func TestContainersEnd(t *testing.T) {
	t.Parallel()
	busybox, err := exec.LookPath("busybox")
	if err != nil || exec.CommandContext(t.Context(), "docker", "version").Run() != nil {
		t.Skip("there is no Docker engine, or no busybox to run in it")
	}
	_, _, p := one(t)
	spec := newSpec(t, p, 1)
	dir := dirOf(t, create(t, p, spec).Nodes[0])
	image := "skyport-test-" + string(spec.ID)
	build := exec.CommandContext(t.Context(), "sh", "-c",
		`tar -C "$1" -ch busybox | docker import --change 'LABEL skyport.test=ssh' - "$2"`, "sh", filepath.Dir(busybox), image)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", image).Run() })
	start := func(label string) string {
		out, err := exec.CommandContext(t.Context(), "docker", "run", "-d", "--network", "none", "--label", label, "--label", "skyport.test=ssh",
			image, "/busybox", "sleep", "600").Output()
		if err != nil {
			t.Fatal(err)
		}
		id := strings.TrimSpace(string(out))
		t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", id).Run() })
		return id
	}
	ours, foreign := start("skyport.dir="+dir), start("skyport.dir="+dir+"x")
	remove(t, p, spec)
	if exec.CommandContext(t.Context(), "docker", "inspect", ours).Run() == nil {
		t.Error("the container is left")
	}
	if exec.CommandContext(t.Context(), "docker", "inspect", foreign).Run() != nil {
		t.Error("a foreign container is gone")
	}
}

// TestMountsEnd: nothing is removed through a mount.
func TestMountsEnd(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sshfs"); err != nil || !exists("/dev/fuse") {
		t.Skip("there is no sshfs, or no FUSE for it")
	}
	m, _, p := one(t)
	spec := newSpec(t, p, 1)
	key := withKey(t, &spec)
	node := create(t, p, spec).Nodes[0]
	dir := dirOf(t, node)
	precious := filepath.Join(m.dir, "precious")
	if err := errors.Join(os.Mkdir(precious, 0o700), os.WriteFile(filepath.Join(precious, "file"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = exec.Command("fusermount", "-uz", filepath.Join(dir, "shared")).Run() })
	host := m.host(t, "")
	run(t, login(t, node, key), "mkdir "+dir+"/shared && sshfs -p "+strings.TrimPrefix(host.Address, "127.0.0.1:")+
		" -o IdentityFile="+key+",IdentitiesOnly=yes,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null "+
		host.User+"@127.0.0.1:"+precious+" "+dir+"/shared </dev/null >/dev/null 2>&1")
	if !exists(filepath.Join(dir, "shared", "file")) {
		t.Fatal("it is not mounted")
	}
	remove(t, p, spec)
	if !exists(filepath.Join(precious, "file")) {
		t.Error("the removal went through the mount")
	}
}
