package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
)

// remote is the Docker site: nodes are containers that boot as machines do, and
// core reaches them by SSH. They are killed from outside, by the engine.
type remote struct {
	h      *house
	image  string
	ledger *ledgerServer
	owns   string                  // owner of the nodes at the engine; empty: the house
	end    func(node string) error // ends a node as its site does when it breaks; nil: by the engine

	mu     sync.Mutex
	deaths []*death
	losses map[skyport.JobID]map[int]string // attempts that were judged to be lost, and what was said of it
}

// A death is what may have cost attempts.
type death struct {
	node        string
	who         victim
	from, until time.Time // zero until: the node is gone for good
}

func newRemote(h *house, image string) site {
	ledger, err := serveLedgers(h.path("ledger"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.patience, h.lifeTime = 10*time.Second, 4*time.Minute
	return &remote{h: h, image: image, ledger: ledger, losses: map[skyport.JobID]map[int]string{}}
}

func (r *remote) settings() []string {
	// Scripts run on the nodes themselves, which need no engine of their own. The
	// nodes of others at the same engine do not count.
	return []string{"SWM_LOCAL_ENABLED=false", "SWM_DOCKER_ENABLED=true", "SWM_DOCKER_ENGINE=false", "SWM_DOCKER_NODES=0", "SWM_DOCKER_IMAGE=" + r.image}
}

func (r *remote) script(w *work) (shell string, directives []string, mark string) {
	if w.shared {
		directives = append(directives, "flavor large", "keep-alive 10s")
	}
	if w.random%6 == 0 {
		directives = append(directives, "nodes 2")
	}
	return "/bin/bash", directives, r.ledger.mark(w.number)
}

func (r *remote) victims() []victim {
	return []victim{theCore, theGate, aWorker, aShim, aServer, aNode, aBoot, allAtOnce, machine}
}

// What is killed on a node, as pkill takes it.
var (
	workers = []string{"-f", "skyport-worker.* serve "}
	shims   = []string{"-f", "skyport-worker.* shim "}
	servers = []string{"-x", "sshd"}
)

func (r *remote) strike(ctx context.Context, who victim, random *rand.Rand) bool {
	var nodes []string
	anyOf := func(do func(node string) bool) bool {
		return until(ctx, 3*time.Second, func() bool {
			nodes = r.nodes(ctx)
			random.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
			return slices.ContainsFunc(nodes, do)
		})
	}
	switch who {
	case aWorker:
		return anyOf(func(node string) bool { return r.killOn(ctx, node, workers) })
	case aServer:
		return anyOf(func(node string) bool { return r.killOn(ctx, node, servers) })
	case aShim:
		return anyOf(func(node string) bool {
			d := r.dies(node, who)
			struck := r.killOn(ctx, node, shims)
			r.lives(d, struck, 0)
			return struck
		})
	case aNode:
		return anyOf(func(node string) bool {
			d := r.dies(node, who)
			err := r.kill(ctx, node)
			if err != nil && r.end != nil {
				r.lives(d, false, 0)
			}
			return err == nil // it may be gone already
		})
	case aBoot:
		return anyOf(func(node string) bool {
			d := r.dies(node, who)
			_, err := docker(ctx, "restart", "-t", "1", node)
			r.lives(d, true, 10*time.Second) // the gate may have taken it for dead
			return err == nil
		})
	}
	nodes = r.nodes(ctx)
	for _, node := range nodes {
		if who == machine {
			r.dies(node, who)
		} else {
			r.killOn(ctx, node, workers)
		}
	}
	if who == machine && len(nodes) > 0 {
		_ = r.kill(ctx, nodes...) // those that are gone already are named
	}
	return len(nodes) > 0
}

// kill ends nodes.
func (r *remote) kill(ctx context.Context, nodes ...string) error {
	if r.end == nil {
		_, err := docker(ctx, append([]string{"kill"}, nodes...)...)
		return err
	}
	var errs []error
	for _, node := range nodes {
		errs = append(errs, r.end(node))
	}
	return errors.Join(errs...)
}

// nodes are the names of the nodes that run.
func (r *remote) nodes(ctx context.Context) []string {
	out, err := docker(ctx, "ps", "--format", "{{.Names}}", "--filter", "label="+ownerLabel+r.owner(), "--filter", "label="+kindLabel+"node")
	if err != nil && ctx.Err() == nil {
		r.h.t.Error(err)
	}
	nodes := strings.Fields(out)
	slices.Sort(nodes)
	return nodes
}

// killOn kills processes on a node. It is false when there are none.
func (r *remote) killOn(ctx context.Context, node string, which []string) bool {
	_, err := docker(ctx, append([]string{"exec", node, "pkill", "-KILL"}, which...)...)
	return err == nil
}

func (r *remote) dies(node string, who victim) *death {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := &death{node: node, who: who, from: time.Now()}
	r.deaths = append(r.deaths, d)
	return d
}

// lives ends a death, which did not come to pass if it did not strike.
func (r *remote) lives(d *death, struck bool, after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.until = time.Now().Add(after); !struck {
		r.deaths = slices.DeleteFunc(r.deaths, func(other *death) bool { return d == other })
	}
}

// causes are the deaths that may have cost an attempt.
func (r *remote) causes(a *skyport.Attempt) (causes []death) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.deaths {
		if strings.HasPrefix(d.node, skyport.PartitionName(a.Partition)+"-") &&
			(d.until.IsZero() || a.Created.Before(d.until)) && (a.Ended.IsZero() || a.Ended.After(d.from)) {
			causes = append(causes, *d)
		}
	}
	return causes
}

// reasons are words of which each reason of a loss has one.
var reasons = map[victim][]string{
	aShim:   {"vanished"},
	aNode:   {"killed by signal 9", "was shut down"},
	machine: {"killed by signal 9", "was shut down"},
	aBoot:   {"booted", "the node ended it", "powered off", "has ended", "killed by signal"},
}

// judgeAttempts: an attempt may be lost when something of its nodes was killed, and
// says so. Whatever else ends an attempt was asked for.
func (r *remote) judgeAttempts(ctx context.Context, w *work, job *skyport.Job) (givenUp bool, err error) {
	attempts, err := r.h.user.Attempts(ctx, w.id)
	if err != nil {
		return false, fmt.Errorf("attempts: %w", err)
	}
	if len(attempts) != job.Attempt {
		return false, fmt.Errorf("it has %d attempts and is in attempt %d", len(attempts), job.Attempt)
	}
	asked, lost := 0, 0
	for i := range attempts {
		a := &attempts[i]
		if a.Number == job.Attempt && job.State == skyport.JobFinished {
			break
		}
		causes := r.causes(a)
		switch {
		case asked < w.requeues && (len(causes) == 0 || !explains(a, causes)):
			asked++
		case len(causes) == 0:
			return false, fmt.Errorf("attempt %d ended though nothing of its nodes was killed: %q", a.Number, a.Outcome)
		case !explains(a, causes):
			return false, fmt.Errorf("attempt %d ended by %+v, and says %q", a.Number, causes, a.Outcome)
		default:
			lost++
			r.note(a)
		}
	}
	if job.State != skyport.JobFailed {
		return false, nil
	}
	switch {
	case strings.HasPrefix(job.Details, "The attempt was lost: ") && lost > w.retries:
		return true, nil
	case strings.HasPrefix(job.Details, "Gave up after 3 attempts: ") && lost >= 3:
		return true, nil
	}
	return true, fmt.Errorf("%d attempts were lost, it has %d retries, and it is %s: %s", lost, w.retries, job.State.Word(), job.Details)
}

// explains says whether the outcome of an attempt names its partition and is of
// one of the causes.
func explains(a *skyport.Attempt, causes []death) bool {
	if !strings.Contains(a.Outcome, skyport.PartitionName(a.Partition)) {
		return false
	}
	return slices.ContainsFunc(causes, func(d death) bool {
		return slices.ContainsFunc(reasons[d.who], func(word string) bool { return strings.Contains(a.Outcome, word) })
	})
}

func (r *remote) note(a *skyport.Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.losses[a.Job] == nil {
		r.losses[a.Job] = map[int]string{}
	}
	if r.losses[a.Job][a.Number] == "" {
		r.h.t.Logf("attempt %d of job %s was lost: %s", a.Number, a.Job.Short(), a.Outcome)
	}
	r.losses[a.Job][a.Number] = a.Outcome
}

func (r *remote) lost() (sum int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range r.losses {
		sum += len(of)
	}
	return sum
}

func (r *remote) tell(ctx context.Context, w *work) string {
	attempts, err := r.h.user.Attempts(ctx, w.id)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	b.WriteString("its attempts:")
	for i := range attempts {
		a := &attempts[i]
		fmt.Fprintf(&b, "\n  %d on %s from %s to %s, started %s, phase %d: %s", a.Number, skyport.PartitionName(a.Partition),
			clock(a.Created), clock(a.Ended), clock(a.Started), a.Phase, a.Outcome)
		for _, d := range r.causes(a) {
			fmt.Fprintf(&b, "\n    %s of %s killed from %s to %s", d.who, d.node, clock(d.from), clock(d.until))
		}
		for _, node := range skyport.NodeNames(a.Partition, 2) {
			if said, err := docker(ctx, "exec", node, "tail", "-n", "20", "/var/lib/skyport/worker.log"); err == nil {
				fmt.Fprintf(&b, "\n    worker of %s:\n%s", node, indent(indent(said)))
			}
		}
	}
	return b.String() + "\n "
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("15:04:05.000")
}

func (r *remote) remains(ctx context.Context) map[string][]string {
	left := map[string][]string{}
	for kind, list := range map[string][]string{
		"containers": {"ps", "-a", "--format", "{{.Names}}"}, "networks": {"network", "ls", "--format", "{{.Name}}"}, "volumes": {"volume", "ls", "-q"},
	} {
		out, err := docker(ctx, append(list, "--filter", "label="+ownerLabel+r.owner())...)
		if err != nil {
			r.h.t.Error(err)
		}
		left[kind] = strings.Fields(out)
	}
	return left
}

func (r *remote) cleanUp() {
	if err := r.ledger.close(); err != nil {
		r.h.t.Errorf("ledger: %v", err)
	}
	ctx := context.Background()
	var err error
	gone := until(ctx, time.Minute, func() bool { // the engine may be at it already
		left := r.remains(ctx)
		err = nil
		for _, kind := range []struct {
			name   string
			remove []string
		}{{"containers", []string{"rm", "-f", "-v"}}, {"networks", []string{"network", "rm"}}, {"volumes", []string{"volume", "rm", "-f"}}} {
			if names := left[kind.name]; len(names) > 0 {
				_, failed := docker(ctx, append(kind.remove, names...)...)
				err = errors.Join(err, failed)
			}
		}
		return len(left["containers"])+len(left["networks"])+len(left["volumes"]) == 0
	})
	if !gone {
		r.h.t.Errorf("the engine still has something: %v", err)
	}
}

// The labels of what the gate makes at the engine.
const (
	ownerLabel = "io.openworkload.skyport.owner="
	kindLabel  = "io.openworkload.skyport.kind="
)

// owner is the tag that all of the house's nodes carry.
func (r *remote) owner() string {
	if r.owns != "" {
		return r.owns
	}
	text, err := os.ReadFile(r.h.layout.OwnerFile())
	if err != nil {
		r.h.t.Error(err)
		return "nobody"
	}
	return strings.TrimSpace(string(text))
}

// docker runs the engine's own client.
func docker(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return string(out), nil
}
