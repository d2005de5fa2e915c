package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/images/node"
	azuretest "github.com/openworkload/skyport/test/azure"
)

// azureHouse is a house whose only site is Azure: the emulator, whose virtual
// machines are containers that boot their user data by real cloud-init.
type azureHouse struct {
	*house
	cloud *azuretest.Emulator
	name  string // of the owner of its containers
}

// azureSite opens such a house, with a person who has logged in at the registry.
func azureSite(t *testing.T) *azureHouse {
	t.Helper()
	image := node.Ensure(t)
	address, err := ownAddress()
	if err != nil {
		t.Skipf("nodes need a way back to this machine: %v", err)
	}
	nodesAtOnce() <- struct{}{}
	a := &azureHouse{name: "azure-" + string(skyport.NewPartitionID())[:8]}
	t.Cleanup(func() {
		defer func() { <-nodesAtOnce() }()
		if left := remains(t, a.name); left != "" {
			t.Errorf("the engine still has of this test: %s", left)
			removeAll(t, a.name)
		}
	})
	machines, err := azuretest.NewDocker(azuretest.DockerOptions{Image: image, Name: a.name})
	if err != nil {
		t.Fatal(err)
	}
	if a.cloud, err = azuretest.New(azuretest.Options{Machines: machines}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.cloud.Close(); err != nil {
			t.Error(err)
		}
	})
	a.house = newHouse(t, "SWM_LOCAL_ENABLED=false")
	a.patience = remotePatience
	// No service of the internet is asked for our address.
	text := a.cloud.GateFile("azure", "currency: EUR", "default_flavor: Standard_D2s_v5", "ssh_from: ["+address+"]")
	if err := os.WriteFile(filepath.Join(a.spool, "gate.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// machine waits for the resource id of a job's main node.
func (a *azureHouse) machine(id skyport.JobID) (at string) {
	a.t.Helper()
	job := a.reach(id, skyport.JobRunning)
	for _, r := range a.cloud.Resources() {
		if strings.HasSuffix(r.ID, "/virtualMachines/"+job.NodeNames[0]) {
			return r.ID
		}
	}
	a.t.Fatalf("the cloud has no machine %s", job.NodeNames[0])
	return ""
}

// TestAzure is the whole life of jobs through the Azure provider: one over three
// nodes in a container from a private registry, and one on a spot node that the
// cloud takes back. In the end it costs what it should, and the cloud is empty.
func TestAzure(t *testing.T) {
	t.Parallel()
	a := azureSite(t)
	a.part("check", func(t *testing.T) {
		for _, f := range read[[]gate.Finding](a.house, "gate", "check", "azure") {
			if f.Level != gate.LevelOK {
				t.Errorf("the check says %+v", f)
			}
		}
	})
	a.start("up")
	a.ready()
	t.Cleanup(func() {
		if t.Failed() {
			calls := a.cloud.Calls()
			t.Logf("the last calls: %+v", calls[max(0, len(calls)-15):])
		}
	})
	a.login("the password")
	a.write("in.txt", "hello\n")
	spot := a.submit(`#SWM spot yes
#SWM retries 1
echo "run $SWM_RUN"
case $SWM_RUN in *.1) exec sleep 600;; esac
`)
	id := a.submit("#SWM nodes 3\n#SWM container-image " + a.image("busybox:1") + `
#SWM input-files in.txt
#SWM output-files out.txt
#SWM ports 8123/tcp/in
set -eu
swm-task --label -- sh -c 'echo "task $RANK of $WORLD_SIZE on $(hostname) reads $(cat in.txt)"'
cat in.txt in.txt >out.txt
echo served | nc -l -p 8123
echo done >&2
`)
	a.part("flavors", func(t *testing.T) {
		flavors := read[[]skyport.Flavor](a.house, "flavors", "--site", "azure")
		at := slices.IndexFunc(flavors, func(f skyport.Flavor) bool { return f.Name == "Standard_D2s_v5" })
		if at < 0 || flavors[at].Price <= 0 || flavors[at].SpotPrice <= 0 || flavors[at].SpotPrice >= flavors[at].Price || flavors[at].Unpriced {
			t.Errorf("the flavors are %+v", flavors)
		}
	})
	a.part("spot", func(t *testing.T) { a.spotLife(t, spot) })
	a.part("cluster", func(t *testing.T) { a.clusterLife(t, id) })
	a.until("no partition is left", func() bool { out, _, _ := a.run("", "partitions", "--json"); return out == "[]\n" })
	if left := a.cloud.Resources(); len(left) > 0 {
		t.Errorf("the cloud still has %+v", left)
	}
	if left := remains(t, a.name); left != "" {
		t.Errorf("the engine still has %s", left)
	}
	a.noKeys()
	a.part("cost", func(t *testing.T) {
		report := read[skyport.CostReport](a.house, "cost", "--by", "job", "--all")
		for _, job := range []skyport.JobID{id, spot} {
			at := slices.IndexFunc(report.Costs, func(c skyport.Cost) bool { return c.Key == string(job) })
			if at < 0 || report.Costs[at].Amount <= 0 || report.Costs[at].Running != 0 || report.Costs[at].Currency != "EUR" || report.Costs[at].Unpriced {
				t.Errorf("job %s cost this: %+v", job, report.Costs)
			}
		}
	})
}

// spotLife: the cloud takes the node back, and the job goes on on another.
func (a *azureHouse) spotLife(t *testing.T, id skyport.JobID) {
	t.Helper()
	if err := a.cloud.Evict(a.machine(id)); err != nil {
		t.Fatal(err)
	}
	job := a.finish(id, 0)
	if job.Attempt != 2 {
		t.Errorf("it ended in attempt %d", job.Attempt)
	}
	if out := a.log(id, skyport.Stdout); !strings.Contains(out, fmt.Sprintf("run %s.2", id)) {
		t.Errorf("it says %q", out)
	}
	attempts, err := a.client().Attempts(t.Context(), id)
	if err != nil || len(attempts) != 2 || !strings.Contains(attempts[0].Outcome, "took") {
		t.Errorf("its attempts are %+v, %v", attempts, err)
	}
}

// clusterLife is that of the job over three nodes, until its port was read.
func (a *azureHouse) clusterLife(t *testing.T, id skyport.JobID) {
	t.Helper()
	a.reach(id, skyport.JobRunning)
	a.until("its port answers", func() bool {
		ports, err := a.client().Ports(t.Context(), id)
		if err != nil || len(ports) == 0 || ports[0].Address == "" {
			return false
		}
		text, err := fetchLine(t.Context(), ports[0].Address)
		return err == nil && text == "served\n"
	})
	job := a.finish(id, 0)
	out := a.log(id, skyport.Stdout)
	for i, name := range job.NodeNames {
		if want := fmt.Sprintf("task %d of 3 on %s reads hello", i, name); !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s%s", want, out, a.log(id, skyport.Stderr))
		}
	}
	if errs := a.log(id, skyport.Stderr); !strings.Contains(errs, "done") {
		t.Errorf("its errors are %q", errs)
	}
	a.ok("results", string(id), "--to", filepath.Join(a.work, "back"))
	if got, err := os.ReadFile(filepath.Join(a.work, "back", "out.txt")); err != nil || string(got) != "hello\nhello\n" {
		t.Errorf("its output is %q, %v", got, err)
	}
}

// fetchLine reads all that a server says by itself.
func fetchLine(ctx context.Context, address string) (string, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }() // only read
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	line := make([]byte, len("served\n"))
	n, err := io.ReadFull(conn, line)
	return string(line[:n]), err
}
