package worker_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

func TestStop(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	t.Run("gracefully", func(t *testing.T) {
		spec := script(`trap 'echo bye; kill $!; exit 7' TERM; echo up; sleep 1000 & wait`)
		n.prepare(spec)
		n.await("the script is up", func() bool { return n.log(spec.Run, "stdout") == "up\n" })
		if err := n.client.Stop(t.Context(), spec.Run); err != nil {
			t.Fatal(err)
		}
		s := n.ended(spec.Run)
		if !s.Stopped || s.ExitCode != 7 || n.log(spec.Run, "stdout") != "up\nbye\n" {
			t.Errorf("%+v %q", s, n.log(spec.Run, "stdout"))
		}
	})
	t.Run("before the start", func(t *testing.T) {
		spec := script("echo ran >> ran")
		spec.Start = false
		n.prepare(spec)
		if err := n.client.Stop(t.Context(), spec.Run); err != nil {
			t.Fatal(err)
		}
		n.ended(spec.Run)
		if _, err := n.client.Start(t.Context(), spec.Run); err != nil {
			t.Error(err)
		}
		if s := n.ended(spec.Run); s.State != protocol.RunEnded || !s.Stopped || !s.Started.IsZero() {
			t.Errorf("%+v", s)
		}
		n.wantRuns(spec.Run, 0)
	})
	t.Run("by another worker, at any moment", func(t *testing.T) {
		for range 5 {
			spec := script("trap '' TERM; sleep 1000")
			spec.Grace = 1
			n.prepare(spec)
			n.kill()
			n.start()
			if err := n.client.Stop(t.Context(), spec.Run); err != nil {
				t.Fatal(err)
			}
			if s := n.ended(spec.Run); s.State != protocol.RunEnded || !s.Stopped {
				t.Errorf("%+v", s)
			}
		}
	})
}

// A tree that ignores TERM, leaves its session and its parents.
func TestTimeLimitOfStubbornTree(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script(`trap '' TERM
(setsid sh -c 'trap "" TERM; (sh -c "trap \"\" TERM; while :; do sleep 1000; done" &) ; while :; do sleep 1000; done' &)
while :; do sleep 1000; done`)
	spec.Request.TimeLimit, spec.Grace = 1, 1
	n.prepare(spec)
	s := n.ended(spec.Run)
	took := s.Ended.Sub(s.Started)
	if !s.TimedOut || s.Signal != int(syscall.SIGKILL) || took < 2*time.Second || took > 10*time.Second || !strings.Contains(s.Details, "time limit") {
		t.Errorf("after %s: %+v", took, s)
	}
	table, err := proc.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if left := table.Marked("SWM_RUN=" + spec.Run); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	// A shell that doubles a string: 2^30 bytes if it is let.
	spec := script(`x=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26; do x=$x$x; done; echo alive`)
	spec.Memory, spec.CPUs = 64<<20, 1
	n.prepare(spec)
	s := n.ended(spec.Run)
	if n.log(spec.Run, "stdout") != "" || (s.ExitCode == 0 && s.Signal == 0) {
		t.Fatalf("the limit does not hold: %+v", s)
	}
	if !strings.Contains(s.Details, "memory limit 64 MiB") || !strings.Contains(s.Details, "cpu limit") {
		t.Errorf("details %q do not say the limits", s.Details)
	}
	if strings.Contains(s.Details, "memory limit 64 MiB by cgroup") && !s.OutOfMem {
		t.Errorf("killed for memory without saying so: %+v", s)
	}
}
