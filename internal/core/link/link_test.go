package link_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/link"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/protocol/protocoltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// news collects what a link tells.
type news struct {
	mu   sync.Mutex
	runs []string
}

func (n *news) changed(run string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.runs = append(n.runs, run)
}

func (n *news) told(run string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.runs, run)
}

func open(t *testing.T, w *protocoltest.Worker) (*link.Link, *news) {
	t.Helper()
	n := &news{}
	l, err := link.Open(link.Options{Nodes: []skyport.Node{{Name: "n", Endpoint: w.Endpoint()}}, Changed: n.changed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, n
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	waitFor(t, 20*time.Second, what, holds)
}

func waitFor(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func up(l *link.Link) bool { is, _, _ := l.Up(); return is }

func inState(l *link.Link, run string, state protocol.RunState) func() bool {
	return func() bool {
		s, known := l.Status(run)
		return known && s.State == state
	}
}

func prepare(t *testing.T, l *link.Link, run string) protocol.RunStatus {
	t.Helper()
	status, err := l.Worker().Prepare(t.Context(), protocol.RunSpec{Run: run, Start: true})
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func TestALinkTellsWhatTheWorkerHas(t *testing.T) {
	t.Parallel()
	w := protocoltest.New(t)
	l, n := open(t, w)
	until(t, "up", func() bool { return up(l) })
	if !n.told("") {
		t.Error("nobody was told that it came up")
	}
	if _, known := l.Status("a.1"); known || len(l.Runs()) > 0 {
		t.Error("it knows a run that there is not")
	}
	prepare(t, l, "a.1")
	until(t, "runs", inState(l, "a.1", protocol.RunRunning))
	until(t, "it is told", func() bool { return n.told("a.1") })
	w.End("a.1", 0)
	until(t, "ended", inState(l, "a.1", protocol.RunEnded))
	if got := l.Runs(); !slices.Equal(got, []string{"a.1"}) {
		t.Errorf("its runs are %v", got)
	}
	if err := l.Worker().Remove(t.Context(), "a.1"); err != nil {
		t.Fatal(err)
	}
	until(t, "forgotten", func() bool { _, known := l.Status("a.1"); return !known })
}

func TestALinkDialsAgain(t *testing.T) {
	t.Parallel()
	w := protocoltest.New(t)
	w.Down()
	l, n := open(t, w)
	until(t, "a reason", func() bool { is, since, err := l.Up(); return !is && err != nil && !since.IsZero() })
	w.Up()
	until(t, "up", func() bool { return up(l) })
	prepare(t, l, "a.1")
	prepare(t, l, "b.1")
	until(t, "both run", func() bool {
		return inState(l, "a.1", protocol.RunRunning)() && inState(l, "b.1", protocol.RunRunning)()
	})

	before := time.Now()
	w.Down()
	until(t, "down", func() bool { return !up(l) })
	if _, since, err := l.Up(); since.Before(before) || err == nil {
		t.Errorf("it is down since %s (before the loss) because of %v", since, err)
	}
	// What happens meanwhile is seen afterwards, also what is gone.
	w.End("a.1", 2)
	w.Up()
	until(t, "up again", func() bool { return up(l) })
	if s, known := l.Status("a.1"); !known || s.State != protocol.RunEnded || s.ExitCode != 2 {
		t.Errorf("up again, and a.1 is %+v", s)
	}
	// A worker that booted has versions of its own: they are the truth.
	w.Reboot()
	until(t, "lost", inState(l, "b.1", protocol.RunLost))
	if !n.told("") {
		t.Error("nobody was told")
	}
}

func TestStatusesDoNotGoBack(t *testing.T) {
	t.Parallel()
	w := protocoltest.New(t)
	l, _ := open(t, w)
	until(t, "up", func() bool { return up(l) })
	first := prepare(t, l, "a.1")
	w.End("a.1", 0)
	until(t, "ended", inState(l, "a.1", protocol.RunEnded))
	l.Note(first) // an answer that was long on its way
	if s, _ := l.Status("a.1"); s.State != protocol.RunEnded {
		t.Errorf("it went back to %s", s.State)
	}
}

func TestNote(t *testing.T) {
	t.Parallel()
	w := protocoltest.New(t)
	l, n := open(t, w)
	until(t, "up", func() bool { return up(l) })
	l.Note(protocol.RunStatus{Run: "a.1", Version: 7, State: protocol.RunRunning})
	if s, known := l.Status("a.1"); !known || s.Version != 7 || !n.told("a.1") {
		t.Errorf("what was noted is %+v, told %v", s, n.told("a.1"))
	}
	w.Down()
	until(t, "down", func() bool { return !up(l) })
	l.Note(protocol.RunStatus{Run: "b.1", Version: 8})
	if _, known := l.Status("b.1"); known {
		t.Error("a link that is down believes an old answer")
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "unix://", "ssh://user@host:22", "ssh://host:22/dir", "ssh://user:secret@host/dir", "unix://host/path", "/a/path", "http://x", "\x7f:"} {
		if _, err := link.Open(link.Options{Nodes: []skyport.Node{{Name: "node-7", Endpoint: bad}}}); err == nil || !strings.Contains(err.Error(), "node-7") {
			t.Errorf("endpoint %q: %v", bad, err)
		}
	}
}

// Close ends a link that is up, one that is dialling and one that waits.
func TestClose(t *testing.T) {
	t.Parallel()
	for _, down := range []bool{false, true} {
		w := protocoltest.New(t)
		if down {
			w.Down()
		}
		l, _ := open(t, w)
		l.Close()
		l.Close()
	}
}

func TestSeveralNodes(t *testing.T) {
	t.Parallel()
	workers := []*protocoltest.Worker{protocoltest.New(t), protocoltest.New(t), protocoltest.New(t)}
	workers[2].Down()
	n := &news{}
	var nodes []skyport.Node
	for i, name := range []string{"main", "compute1", "compute2"} {
		nodes = append(nodes, skyport.Node{Name: name, Endpoint: workers[i].Endpoint()})
	}
	l, err := link.Open(link.Options{Nodes: nodes, Changed: n.changed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	until(t, "two are up", func() bool {
		first, _, _ := l.NodeUp(0)
		second, _, _ := l.NodeUp(1)
		return first && second
	})
	if is, _, err := l.Up(); is || err == nil || !strings.Contains(err.Error(), "compute2") {
		t.Errorf("with one node down it is up: %v, %v", is, err)
	}
	workers[2].Up()
	until(t, "up", func() bool { return up(l) })

	status, err := l.Node(2).Prepare(t.Context(), protocol.RunSpec{Run: "a.1", Start: true})
	if err != nil {
		t.Fatal(err)
	}
	l.NodeNote(2, status)
	if s, known := l.NodeStatus(2, "a.1"); !known || s.Version != status.Version || !slices.Equal(l.NodeRuns(2), []string{"a.1"}) {
		t.Errorf("the run on the third node is %+v, %v", s, known)
	}
	if _, known := l.Status("a.1"); known {
		t.Error("the main node knows another's run")
	}
	client, ok := l.Named("compute1")
	if _, none := l.Named("other"); !ok || client != l.Node(1) || none {
		t.Error("nodes have other names")
	}
}
