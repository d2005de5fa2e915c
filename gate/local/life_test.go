package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/local"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/workerbin/workertest"
)

const patience = 20 * time.Second

// until follows the provider's changes until f is true.
func until(t *testing.T, p *local.Provider, what string, f func() bool) {
	t.Helper()
	end := time.After(patience)
	for {
		changed := p.Changed()
		if f() {
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond): // what is awaited may not be of the provider
		case <-end:
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func make1(t *testing.T, p *local.Provider) gate.PartitionSpec {
	t.Helper()
	id := skyport.NewPartitionID()
	spec := gate.PartitionSpec{
		ID: id, Owner: "test", Site: "local", Flavor: "local.1", Nodes: skyport.NodeNames(id, 1), Lease: time.Now().Add(time.Hour),
	}
	if err := p.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

func await(t *testing.T, p *local.Provider, spec gate.PartitionSpec, state gate.State) (status gate.PartitionStatus) {
	t.Helper()
	until(t, p, string(state), func() bool {
		var err error
		status, err = p.Status(t.Context(), spec.Site, spec.ID)
		return err == nil && status.State == state
	})
	return status
}

func remove(t *testing.T, p *local.Provider, spec gate.PartitionSpec) {
	t.Helper()
	if err := p.Delete(t.Context(), spec.Site, spec.ID); err != nil {
		t.Fatal(err)
	}
	until(t, p, "removal", func() bool {
		_, err := p.Status(t.Context(), spec.Site, spec.ID)
		return errors.Is(err, gate.ErrNotFound)
	})
}

// askNode makes a request to the node's worker and returns the answer's status.
func askNode(t *testing.T, status gate.PartitionStatus, method, path string, in, out any) int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(status.Nodes[0].Endpoint, "unix://"))
		},
	}}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://worker"+path, strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode
}

// workerOf is the process of the node's worker.
func workerOf(t *testing.T, status gate.PartitionStatus) int {
	t.Helper()
	var info protocol.Info
	if code := askNode(t, status, "GET", "/v1/worker", nil, &info); code != http.StatusOK || info.PID == 0 {
		t.Fatalf("%d %+v", code, info)
	}
	return info.PID
}

// TestWorkerIsStartedAgain: a worker that dies comes back, also one that an
// earlier provider has started.
func TestWorkerIsStartedAgain(t *testing.T) {
	t.Parallel()
	for _, adopted := range []bool{false, true} {
		t.Run(fmt.Sprintf("adopted %v", adopted), func(t *testing.T) {
			t.Parallel()
			o := local.Options{Dir: t.TempDir()}
			p := open(t, o)
			spec := make1(t, p)
			first := workerOf(t, await(t, p, spec, gate.StateUp))
			if adopted {
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
				p = open(t, o)
				if same := workerOf(t, await(t, p, spec, gate.StateUp)); same != first {
					t.Fatalf("a restart of the gate made worker %d of %d", same, first)
				}
			}
			if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			await(t, p, spec, gate.StateBooting)
			if second := workerOf(t, await(t, p, spec, gate.StateUp)); second == first {
				t.Error("the same worker")
			}
			if row, err := proc.Read(first); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the dead worker was not reaped: %+v, %v", row, err)
			}
			remove(t, p, spec)
		})
	}
}

// TestWorkerStandsAlone: the worker is out of reach of the terminal, has
// nothing of the gate's environment, and no descriptor of it.
func TestWorkerStandsAlone(t *testing.T) {
	t.Setenv("CLOUD_PASSWORD", "hunter2")
	p := open(t, local.Options{Dir: t.TempDir()})
	spec := make1(t, p)
	pid := workerOf(t, await(t, p, spec, gate.StateUp))
	if sid, err := syscall.Getpgid(pid); err != nil || sid != pid {
		t.Errorf("process group %d of worker %d: %v", sid, pid, err)
	}
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil || strings.Contains(string(env), "hunter2") || !strings.Contains(string(env), "PATH=") {
		t.Errorf("environment: %q, %v", env, err)
	}
	fds, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + fd.Name()); err == nil && strings.HasSuffix(target, "/lock") {
			t.Errorf("the worker holds %s", target)
		}
	}
	remove(t, p, spec)
}

// TestFaults: what is switched on happens, and a deletion copes with all of it.
func TestFaults(t *testing.T) {
	t.Parallel()
	t.Run("dies at boot", func(t *testing.T) {
		t.Parallel()
		o := local.Options{Dir: t.TempDir(), Faults: local.Faults{DieAtBoot: true}}
		p := open(t, o)
		spec := make1(t, p)
		status := await(t, p, spec, gate.StateFailed)
		if !strings.Contains(status.Details, spec.Nodes[0]) {
			t.Errorf("details %q do not name the node", status.Details)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		p = open(t, o)
		await(t, p, spec, gate.StateFailed)
		remove(t, p, spec)
	})
	t.Run("worker gives up", func(t *testing.T) {
		t.Parallel()
		binary := filepath.Join(t.TempDir(), "worker")
		if err := os.WriteFile(binary, []byte("#!/bin/sh\necho hello\necho no such luck >&2\nexit 1\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		p := open(t, local.Options{Dir: t.TempDir(), WorkerBinary: binary})
		spec := make1(t, p)
		if status := await(t, p, spec, gate.StateFailed); !strings.Contains(status.Details, "no such luck") {
			t.Errorf("details %q do not say why", status.Details)
		}
		remove(t, p, spec)
	})
	t.Run("never boots", func(t *testing.T) {
		t.Parallel()
		p := open(t, local.Options{Dir: t.TempDir(), Faults: local.Faults{NeverBoot: true}})
		spec := make1(t, p)
		await(t, p, spec, gate.StateBooting)
		remove(t, p, spec)
	})
	t.Run("no worker binary", func(t *testing.T) {
		t.Parallel()
		p := open(t, local.Options{Dir: t.TempDir(), WorkerBinary: "/nonexistent/skyport-worker"})
		spec := make1(t, p)
		if status := await(t, p, spec, gate.StateFailed); !strings.Contains(status.Details, "/nonexistent/skyport-worker") {
			t.Errorf("details %q do not say why", status.Details)
		}
		remove(t, p, spec)
	})
	t.Run("calls fail", func(t *testing.T) {
		t.Parallel()
		p := open(t, local.Options{Dir: t.TempDir()})
		p.SetFaults(local.Faults{CreateRefused: true})
		spec := gate.PartitionSpec{ID: skyport.NewPartitionID(), Owner: "o", Site: "local", Flavor: "local.1", Nodes: []string{"n"}}
		if err := p.Create(t.Context(), spec); !errors.Is(err, gate.ErrPermanent) {
			t.Errorf("create: %v", err)
		}
		p.SetFaults(local.Faults{CreateFails: 1, DeleteFails: 2})
		if err := p.Create(t.Context(), spec); err == nil || errors.Is(err, gate.ErrPermanent) {
			t.Errorf("create: %v", err)
		}
		spec = make1(t, p)
		for range 2 {
			if err := p.Delete(t.Context(), "local", spec.ID); err == nil || errors.Is(err, gate.ErrPermanent) {
				t.Errorf("delete: %v", err)
			}
		}
		remove(t, p, spec)
	})
	t.Run("boot delay", func(t *testing.T) {
		t.Parallel()
		p := open(t, local.Options{Dir: t.TempDir(), BootDelay: 300 * time.Millisecond})
		start := time.Now()
		spec := make1(t, p)
		await(t, p, spec, gate.StateUp)
		if took := time.Since(start); took < 300*time.Millisecond {
			t.Errorf("up after %s", took)
		}
		remove(t, p, spec)
	})
}

// TestSiteIsFull: room is taken until a partition is gone, and a full site is
// no reason to give up.
func TestSiteIsFull(t *testing.T) {
	t.Parallel()
	p := open(t, local.Options{Dir: t.TempDir(), Limits: skyport.Limits{CPUs: 1, Memory: 1 << 50}})
	spec := make1(t, p)
	other := spec
	other.ID = skyport.NewPartitionID()
	if err := p.Create(t.Context(), other); err == nil || errors.Is(err, gate.ErrPermanent) || skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Errorf("create at a full site: %v", err)
	}
	remove(t, p, spec)
	if err := p.Create(t.Context(), other); err != nil {
		t.Errorf("create at an empty site: %v", err)
	}
	remove(t, p, other)
}

// TestOneProviderADirectory: a second one is refused and the first goes on.
func TestOneProviderADirectory(t *testing.T) {
	t.Parallel()
	o := local.Options{Dir: t.TempDir()}
	open(t, o)
	if p, err := local.New(o); skyport.CodeOf(err) != skyport.CodeConflict {
		t.Errorf("a second provider: %v, %v", p, err)
	}
}

// TestNewerVersion: what a newer version has written is left untouched.
func TestNewerVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	part := filepath.Join(dir, string(skyport.NewPartitionID()))
	if err := errors.Join(os.Mkdir(part, 0o700), os.WriteFile(filepath.Join(part, "partition.json"), []byte(`{"version":99}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := local.New(local.Options{Dir: dir}); skyport.CodeOf(err) != skyport.CodeUnsupported {
		t.Errorf("got %v", err)
	}
}

// TestCutOff: directories without a record, as a kill may leave them, are
// cleared away; what is not ours stays.
func TestCutOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	half, foreign := filepath.Join(dir, string(skyport.NewPartitionID())), filepath.Join(dir, "notes")
	if err := errors.Join(os.MkdirAll(filepath.Join(half, "node"), 0o700), os.Mkdir(foreign, 0o700)); err != nil {
		t.Fatal(err)
	}
	p := open(t, local.Options{Dir: dir})
	until(t, p, "clearing", func() bool {
		_, err := os.Stat(half)
		return errors.Is(err, os.ErrNotExist)
	})
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
}

// TestNothingIsLeft: a job that hides its processes in every way it can loses
// them all, and its directory, when the partition is deleted.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(t *testing.T, worker int, shims []int){
		"all alive":   func(*testing.T, int, []int) {},
		"worker dead": func(t *testing.T, worker int, _ []int) { t.Helper(); kill(t, worker) },
		"shim dead": func(t *testing.T, _ int, shims []int) {
			t.Helper()
			for _, pid := range shims {
				kill(t, pid)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p := open(t, local.Options{Dir: dir, WorkerBinary: workertest.Build(t)})
			spec := make1(t, p)
			status := await(t, p, spec, gate.StateUp)
			pids := filepath.Join(t.TempDir(), "pids")
			job := skyport.NewJobID()
			script := fmt.Sprintf(`#!/bin/sh
echo $$ >> %[1]s
(setsid sh -c 'echo $$ >> %[1]s; exec sleep 300' &)
(setsid env -i /bin/sh -c 'echo $$ >> %[1]s; exec sleep 300' &)
mkdir -p locked/in; touch locked/in/file; chmod 0 locked/in locked
exec sleep 300
`, pids)
			run := protocol.RunSpec{
				Run: skyport.RunName(job, 1), Job: job, Attempt: 1, Script: []byte(script), Nodes: spec.Nodes, Start: true,
			}
			if code := askNode(t, status, "PUT", "/v1/runs/"+run.Run, run, nil); code >= 300 {
				t.Fatalf("start: %d", code)
			}
			var mine []int
			until(t, p, "processes of the job", func() bool {
				text, _ := os.ReadFile(pids)
				mine = nil
				for field := range strings.FieldsSeq(string(text)) {
					if pid, err := strconv.Atoi(field); err == nil {
						mine = append(mine, pid)
					}
				}
				return len(mine) == 3
			})
			worker := workerOf(t, status)
			var shims []int
			if row, err := proc.Read(mine[0]); err == nil {
				shims = append(shims, row.Parent)
			}
			before(t, worker, shims)
			remove(t, p, spec)
			for _, pid := range append(mine, append(shims, worker)...) {
				if row, err := proc.Read(pid); err == nil && !row.Zombie {
					t.Errorf("process %d is left: %+v", pid, row)
				}
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "lock" {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}
