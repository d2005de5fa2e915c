package worker

import (
	"encoding/json"
	"os"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// maxSamples is how many samples of a run are kept. When there are more, each
// pair of neighbours becomes one: a long run is known as coarsely as its length
// allows, from its first second to its last.
const maxSamples = 512

// record holds the samples of a run. Its owner's lock guards it.
type record struct {
	samples []protocol.Sample
	stride  float64       // seconds that a kept sample covers, at least
	cpu     time.Duration // used by the tree when it was last looked at
	last    time.Time     // when that was
	saved   time.Time
	highest float64 // of the cpu samples, before they were merged
	peak    skyport.Bytes
}

// file is what of a record lies on disk.
type recordFile struct {
	Samples []protocol.Sample `json:"samples"`
	CPU     time.Duration     `json:"cpu"`
	Last    time.Time         `json:"last"`
	Highest float64           `json:"highest"`
	Peak    skyport.Bytes     `json:"peak"`
}

// look adds what was seen of the tree at a moment: cpu time in all, memory now.
func (rec *record) look(now time.Time, began time.Time, cpu time.Duration, memory skyport.Bytes) {
	from := rec.last
	if from.IsZero() {
		from = began
	}
	seconds := now.Sub(from).Seconds()
	if seconds <= 0 {
		return // the clock jumped back: the next look is right again
	}
	used := max(cpu-rec.cpu, 0)
	rec.add(protocol.Sample{Time: now, Seconds: seconds, CPU: 100 * used.Seconds() / seconds, Memory: memory})
	rec.cpu, rec.last = cpu, now
}

func (rec *record) add(s protocol.Sample) {
	rec.highest = max(rec.highest, s.CPU)
	rec.peak = max(rec.peak, s.Memory)
	// A sample joins its forerunner while that covers less than its share.
	if n := len(rec.samples); n > 0 && rec.samples[n-1].Seconds+s.Seconds <= rec.stride {
		rec.samples[n-1] = merge(rec.samples[n-1], s)
		return
	}
	rec.samples = append(rec.samples, s)
	if len(rec.samples) <= maxSamples {
		return
	}
	half := rec.samples[:0]
	for i := 0; i+1 < len(rec.samples); i += 2 {
		half = append(half, merge(rec.samples[i], rec.samples[i+1]))
	}
	if len(rec.samples)%2 == 1 {
		half = append(half, rec.samples[len(rec.samples)-1])
	}
	rec.samples = half
	rec.stride = 1.5 * half[0].Seconds
}

// merge joins two neighbours: averages by time for cpu, and for memory too.
func merge(a, b protocol.Sample) protocol.Sample {
	seconds := a.Seconds + b.Seconds
	weight := b.Seconds / seconds
	return protocol.Sample{
		Time: b.Time, Seconds: seconds,
		CPU:    a.CPU + (b.CPU-a.CPU)*weight,
		Memory: a.Memory + skyport.Bytes(float64(b.Memory-a.Memory)*weight),
	}
}

// finish adds what the shim knows for certain at the end, so that even a run
// of a millisecond has a sample.
func (rec *record) finish(exit shim.Exit) {
	if exit.Started.IsZero() || !exit.Ended.After(exit.Started) {
		return
	}
	memory := skyport.Bytes(exit.PeakMemory)
	if n := len(rec.samples); n > 0 {
		memory = rec.samples[n-1].Memory // nearer to the end than the peak is
	}
	rec.look(exit.Ended, exit.Started, time.Duration(exit.CPUSeconds*float64(time.Second)), memory)
	rec.peak = max(rec.peak, skyport.Bytes(exit.PeakMemory))
}

// usage sums up. cpuSeconds is the exact figure when there is one, else 0.
func (rec *record) usage(cpuSeconds float64) protocol.Usage {
	u := protocol.Usage{
		Count: len(rec.samples), CPUMax: rec.highest, MemoryMax: rec.peak,
		CPUSeconds: max(cpuSeconds, rec.cpu.Seconds()),
	}
	var seconds, memory float64
	for _, s := range rec.samples {
		seconds += s.Seconds
		u.CPUAvg += s.CPU * s.Seconds
		memory += float64(s.Memory) * s.Seconds
	}
	if seconds > 0 {
		u.CPUAvg /= seconds
		u.MemoryAvg = skyport.Bytes(memory / seconds)
	}
	return u
}

// savePeriod is how much of the samples a kill of the worker may cost.
const savePeriod = 10 * time.Second

// save writes the record now and then.
func (rec *record) save(path string, now time.Time) error {
	if now.Sub(rec.saved) < savePeriod {
		return nil
	}
	rec.saved = now
	data, err := json.Marshal(recordFile{rec.samples, rec.cpu, rec.last, rec.highest, rec.peak})
	if err != nil {
		return err //nolint:wrapcheck // the caller wraps
	}
	if err := os.WriteFile(path+".tmp", data, 0o600); err != nil {
		return err //nolint:wrapcheck // the caller wraps
	}
	return os.Rename(path+".tmp", path) //nolint:wrapcheck // the caller wraps
}

// load reads what an earlier worker saved. Samples are worth no complaint.
func (rec *record) load(path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		return
	}
	var f recordFile
	if json.Unmarshal(data, &f) == nil {
		rec.samples, rec.cpu, rec.last, rec.highest, rec.peak = f.Samples, f.CPU, f.Last, f.Highest, f.Peak
		if len(rec.samples) > 0 {
			rec.stride = 1.5 * rec.samples[0].Seconds
		}
	}
}
