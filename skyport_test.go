package skyport_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
)

// The tables say which moves are legal; everything else is refused.
func TestMovesOfJobs(t *testing.T) {
	t.Parallel()
	legal := map[skyport.JobState]string{"Q": "WCE", "W": "TRQCE", "T": "RFQCE", "R": "TFQCE", "F": "Q", "C": "Q", "E": "Q"}
	for _, from := range skyport.JobStates() {
		for _, to := range skyport.JobStates() {
			if want := strings.Contains(legal[from], string(to)); from.CanMove(to) != want {
				t.Errorf("%s to %s: %v, want %v", from, to, !want, want)
			}
		}
		if from.CanMove("X") || skyport.JobState("X").CanMove(from) {
			t.Errorf("%s moves to or from a state that there is not", from)
		}
		if from.Terminal() != strings.Contains("FCE", string(from)) {
			t.Errorf("%s terminal: %v", from, from.Terminal())
		}
		if !from.Valid() || from.Word() == string(from) || from.Word() == "" {
			t.Errorf("%s: valid %v, word %q", from, from.Valid(), from.Word())
		}
		// Whatever happened to a job, it can be had again; whatever goes on can be ended.
		if from != skyport.JobQueued && !from.CanMove(skyport.JobQueued) {
			t.Errorf("%s cannot be requeued", from)
		}
		if !from.Terminal() && (!from.CanMove(skyport.JobCanceled) || !from.CanMove(skyport.JobFailed)) {
			t.Errorf("%s cannot be ended", from)
		}
	}
	if skyport.JobState("").Valid() || skyport.JobState("q").Valid() || skyport.JobState("z").Word() != "z" {
		t.Error("a state that there is not counts as one")
	}
}

func TestMovesOfPartitions(t *testing.T) {
	t.Parallel()
	legal := map[skyport.PartitionState]string{
		"planned": "creating draining failed", "creating": "booting connecting draining failed", "booting": "connecting draining failed",
		"connecting": "ready busy draining failed", "ready": "busy draining failed", "busy": "ready draining failed",
		"draining": "deleting failed", "failed": "deleting", "deleting": "deleted", "deleted": "",
	}
	states := skyport.PartitionStates()
	if len(states) != len(legal) {
		t.Fatalf("%d states, the test knows %d", len(states), len(legal))
	}
	usable, connected := "planned creating booting connecting ready busy", "ready busy"
	for _, from := range states {
		for _, to := range states {
			want := has(legal[from], to)
			if from.CanMove(to) != want {
				t.Errorf("%s to %s: %v, want %v", from, to, !want, want)
			}
		}
		if !from.Valid() || from.Usable() != has(usable, from) || from.Connected() != has(connected, from) {
			t.Errorf("%s: valid %v, usable %v, connected %v", from, from.Valid(), from.Usable(), from.Connected())
		}
		if !leads(from, skyport.PartitionDeleted, map[skyport.PartitionState]bool{}) {
			t.Errorf("no way leads from %s to deleted", from)
		}
	}
	if skyport.PartitionState("gone").Valid() {
		t.Error("a state that there is not counts as one")
	}
}

func has(words string, s skyport.PartitionState) bool {
	for _, w := range strings.Fields(words) {
		if w == string(s) {
			return true
		}
	}
	return false
}

func leads(from, to skyport.PartitionState, seen map[skyport.PartitionState]bool) bool {
	if from == to {
		return true
	}
	seen[from] = true
	for _, next := range skyport.PartitionStates() {
		if from.CanMove(next) && !seen[next] && leads(next, to, seen) {
			return true
		}
	}
	return false
}

func TestIDs(t *testing.T) {
	t.Parallel()
	id := skyport.NewJobID()
	if parsed, err := skyport.ParseJobID(strings.ToUpper(string(id))); err != nil || parsed != id {
		t.Errorf("%s comes back as %s, %v", id, parsed, err)
	}
	if p := skyport.NewPartitionID(); p.Short() != string(p)[:8] {
		t.Errorf("%s is %s for short", p, p.Short())
	}
	if _, err := skyport.ParseUserID(string(skyport.NewUserID())); err != nil {
		t.Error(err)
	}
	if got := skyport.JobID("abc").Short(); got != "abc" {
		t.Errorf("a short id is cut to %q", got)
	}
	for _, bad := range []string{
		"", "abc", "{" + string(id) + "}", "urn:uuid:" + string(id), strings.ReplaceAll(string(id), "-", ""), strings.ReplaceAll(string(id), "-", "_"),
		string(id)[:35] + "g", string(id) + " ", strings.Repeat("x", 10_000),
	} {
		for _, parse := range []func(string) error{
			func(s string) error { _, err := skyport.ParseJobID(s); return err },
			func(s string) error { _, err := skyport.ParsePartitionID(s); return err },
			func(s string) error { _, err := skyport.ParseUserID(s); return err },
		} {
			if err := parse(bad); err == nil || len(err.Error()) > 250 {
				t.Errorf("%.50q is taken for an id, or told at length: %.300v", bad, err)
			}
		}
	}
	seen := map[string]bool{}
	for range 1000 {
		seen[skyport.NewJobID().Short()] = true
	}
	if len(seen) < 999 {
		t.Errorf("of 1000 fresh ids only %d differ in their first characters", len(seen))
	}
}

func TestNamesOfNodes(t *testing.T) {
	t.Parallel()
	id := skyport.PartitionID("1a2b3c4d-0000-4000-8000-000000000000")
	want := []string{"swm-1a2b3c4d-main", "swm-1a2b3c4d-compute1", "swm-1a2b3c4d-compute2"}
	if diff := cmp.Diff(want, skyport.NodeNames(id, 3)); diff != "" {
		t.Error(diff)
	}
	if got := skyport.NodeNames(id, 0); len(got) != 0 {
		t.Errorf("no nodes have the names %v", got)
	}
	if got := skyport.RunName("j", 2); got != "j.2" {
		t.Errorf("the run is named %q", got)
	}
}

func TestSizesAndDurationsForPeople(t *testing.T) {
	t.Parallel()
	for size, want := range map[skyport.Bytes]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB", 5 << 30: "5.0 GiB",
		3 << 40: "3.0 TiB", 1 << 50: "1.0 PiB", math.MaxInt64: "8.0 EiB", -1536: "-1.5 KiB", math.MinInt64: "-8.0 EiB",
	} {
		if got := size.String(); got != want {
			t.Errorf("%d bytes are %q, want %q", int64(size), got, want)
		}
	}
	if got := skyport.Seconds(5400).String(); got != "1h30m0s" {
		t.Errorf("5400 s are %q", got)
	}
	if got := skyport.Seconds(2).Duration(); got != 2*time.Second {
		t.Errorf("2 s are %s", got)
	}
	if got := (skyport.Port{Number: 8888, Direction: skyport.In}).String(); got != "8888/tcp/in" {
		t.Errorf("a port is %q", got)
	}
}

func TestAbbreviate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc…"}, {"aé", 2, "a…"}, {"", 0, ""}, {"a", 0, "…"}} {
		if got := skyport.Abbreviate(test.in, test.n); got != test.want {
			t.Errorf("%q in %d bytes is %q, want %q", test.in, test.n, got, test.want)
		}
	}
}

func TestDurationOfAJob(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	now := start.Add(time.Hour)
	for want, j := range map[time.Duration]skyport.Job{0: {}, time.Hour: {StartTime: start}, time.Minute: {StartTime: start, EndTime: start.Add(time.Minute)}} {
		if got := j.Duration(now); got != want {
			t.Errorf("ran %s, want %s", got, want)
		}
	}
	p := skyport.Partition{Flavor: skyport.Flavor{Price: 1.5}, Nodes: make([]skyport.Node, 3)}
	if got := p.PricePerHour(); got != 4.5 {
		t.Errorf("costs %v an hour", got)
	}
}

func TestPhases(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for p := skyport.PhaseAssigned; p <= skyport.PhaseReleased; p++ {
		if word := p.String(); word == "unknown" || seen[word] {
			t.Errorf("phase %d is %q", int(p), word)
		} else {
			seen[word] = true
		}
	}
	if (skyport.PhaseReleased+1).String() != "unknown" || skyport.Phase(-1).String() != "unknown" {
		t.Error("a phase that there is not has a name")
	}
}

func TestErrorsCarryCodeAndHint(t *testing.T) {
	t.Parallel()
	err := skyport.Errorf(skyport.CodeNoSpace, "write %s: %w", "x", io.ErrShortWrite).WithHint("free %d bytes", 5)
	wrapped := fmt.Errorf("fetch: %w", err)
	if got := wrapped.Error(); got != "fetch: write x: short write" {
		t.Errorf("says %q", got)
	}
	if !errors.Is(wrapped, io.ErrShortWrite) || skyport.CodeOf(wrapped) != skyport.CodeNoSpace || skyport.HintOf(wrapped) != "free 5 bytes" {
		t.Errorf("cause, code %s or hint %q are lost", skyport.CodeOf(wrapped), skyport.HintOf(wrapped))
	}
	both := skyport.Errorf(skyport.CodeConflict, "%w and %w", io.EOF, io.ErrClosedPipe)
	if !errors.Is(both, io.EOF) || !errors.Is(both, io.ErrClosedPipe) {
		t.Error("one of two causes is lost")
	}
	outer := skyport.Errorf(skyport.CodeUnavailable, "later: %w", err)
	if skyport.CodeOf(outer) != skyport.CodeUnavailable || skyport.HintOf(outer) != "free 5 bytes" {
		t.Errorf("the outer code is %s, the inner hint %q", skyport.CodeOf(outer), skyport.HintOf(outer))
	}
	if skyport.CodeOf(io.EOF) != skyport.CodeInternal || skyport.HintOf(io.EOF) != "" || skyport.HintOf(nil) != "" {
		t.Error("an error of others has a code or a hint")
	}
}

// Every code of the catalogue has the status that its comment tells.
func TestEveryCodeHasItsStatus(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || spec.Comment == nil {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		codes++
		code := skyport.Code(strings.Trim(literal.Value, `"`))
		var want int
		if _, err := fmt.Sscan(spec.Comment.Text(), &want); err != nil {
			t.Errorf("the comment of %s tells no status", code)
		}
		if got := code.Status(); got != want {
			t.Errorf("%s has status %d, its comment says %d", code, got, want)
		}
		return true
	})
	if codes < 20 {
		t.Errorf("found only %d codes", codes)
	}
	if skyport.Code("nonsense").Status() != 500 {
		t.Error("a code that there is not is not our mistake")
	}
}
