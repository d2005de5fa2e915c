package worker

import (
	"math"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openworkload/skyport"
)

// However long a run is: few samples, which cover all of it, and the cpu time
// that was used.
func TestRecordKeepsWhatWasUsed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var rec record
		began := time.Unix(1_700_000_000, 0)
		now, cpu, highest := began, time.Duration(0), skyport.Bytes(0)
		for range rapid.IntRange(1, 3000).Draw(t, "looks") {
			now = now.Add(time.Second)
			cpu += time.Duration(rapid.IntRange(0, 2000).Draw(t, "used")) * time.Millisecond
			memory := skyport.Bytes(rapid.IntRange(0, 1<<30).Draw(t, "memory"))
			highest = max(highest, memory)
			rec.look(now, began, cpu, memory)
		}
		var seconds, used float64
		for _, s := range rec.samples {
			seconds += s.Seconds
			used += s.CPU / 100 * s.Seconds
		}
		u := rec.usage(0)
		if len(rec.samples) > maxSamples || math.Abs(seconds-now.Sub(began).Seconds()) > 1e-3 ||
			math.Abs(used-cpu.Seconds()) > 1e-3 || u.MemoryMax != highest || u.CPUMax < u.CPUAvg-1e-9 {
			t.Fatalf("%d samples of %f s with %f of %f s cpu, usage %+v", len(rec.samples), seconds, used, cpu.Seconds(), u)
		}
	})
}

func TestRecordOutlivesWorker(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), metricsFile)
	began := time.Unix(1_700_000_000, 0).UTC()
	var rec, next record
	rec.look(began.Add(time.Second), began, time.Second, 5)
	if err := rec.save(path, began.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	next.load(path)
	next.look(began.Add(3*time.Second), began, 2*time.Second, 7)
	if u := next.usage(0); u.Count != 2 || u.CPUMax != 100 || u.MemoryMax != 7 {
		t.Errorf("%+v of %v", u, next.samples)
	}
}
