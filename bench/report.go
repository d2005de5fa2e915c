package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// report is what a run found.
type report struct {
	Version string    `json:"version"`
	Short   bool      `json:"short"` // figures of -short mean nothing
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Machine machine   `json:"machine"`
	Rows    []row     `json:"rows"`

	now string // the measurement under way
}

// row is one figure.
type row struct {
	Measurement string  `json:"measurement"`
	What        string  `json:"what"`
	Value       float64 `json:"value"`
	Unit        string  `json:"unit"`
	Aim         string  `json:"aim,omitempty"`
	Verdict     string  `json:"verdict,omitempty"` // ok, missed, skipped; empty without an aim
	Note        string  `json:"note,omitempty"`
}

// aim is what a figure should be.
type aim struct {
	least, most float64 // 0: no bound
}

func atLeast(v float64) aim { return aim{least: v} }
func under(v float64) aim   { return aim{most: v} }

// add puts a row into the report and prints it.
func (r *report) add(what string, value float64, unit string, a aim, note string) {
	line := row{Measurement: r.now, What: what, Value: value, Unit: unit, Note: note}
	switch {
	case a.most > 0:
		line.Aim, line.Verdict = "< "+number(a.most), "ok"
		if value >= a.most {
			line.Verdict = "missed"
		}
	case a.least > 0:
		line.Aim, line.Verdict = "≥ "+number(a.least), "ok"
		if value < a.least {
			line.Verdict = "missed"
		}
	}
	r.Rows = append(r.Rows, line)
	r.print(os.Stdout, &line)
}

// skip says why something could not be measured here.
func (r *report) skip(what, why string) {
	line := row{Measurement: r.now, What: what, Verdict: "skipped", Note: why}
	r.Rows = append(r.Rows, line)
	r.print(os.Stdout, &line)
}

func (r *report) printHead(w io.Writer) {
	m := &r.Machine
	fmt.Fprintf(w, "skyport %s on %s, %d cores, %s memory, Linux %s, %s; load %s\n",
		r.Version, m.CPU, m.Cores, m.Memory, m.Kernel, m.FileSystem, m.LoadBefore)
	if r.Short {
		fmt.Fprintln(w, "-short: these figures only show that everything can be measured")
	}
	fmt.Fprintf(w, "\n%-9s %-62s %10s %-6s %8s  %s\n", "", "what", "value", "", "aim", "")
}

func (r *report) print(w io.Writer, l *row) {
	value := number(l.Value)
	if l.Verdict == "skipped" {
		value = "-"
	}
	fmt.Fprintf(w, "%-9s %-62s %10s %-6s %8s  %s\n", l.Measurement, l.What, value, l.Unit, l.Aim, l.Verdict)
	if l.Note != "" {
		fmt.Fprintf(w, "%-9s   %s\n", "", l.Note)
	}
}

func (r *report) summary() string {
	count := map[string]int{}
	for i := range r.Rows {
		count[r.Rows[i].Verdict]++
	}
	return fmt.Sprintf("%d figures in %s: %d aims met, %d missed, %d without an aim, %d skipped",
		len(r.Rows), r.Ended.Sub(r.Started), count["ok"], count["missed"], count[""], count["skipped"])
}

// write writes the report to a file of its own in a directory.
func (r *report) write(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("write the report: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write the report: %w", err)
	}
	path := filepath.Join(dir, r.Started.Format("20060102T150405Z")+".json")
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("write the report: %w", err)
	}
	return path, nil
}

// number writes a figure with three digits that mean something.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// series is the same measured several times.
type series []time.Duration

// quantile returns the value below which the share q of the series lies.
func (s series) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func (s series) median() time.Duration { return s.quantile(0.5) }

// spread tells the extremes, for notes.
func (s series) spread() string {
	return fmt.Sprintf("%s to %s in %d", round(slices.MinFunc(s, cmp.Compare)), round(slices.MaxFunc(s, cmp.Compare)), len(s))
}

// round leaves three digits or so.
func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d > 100*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// rate is bytes in a time, in MB/s.
func rate(bytes int64, d time.Duration) float64 { return float64(bytes) / 1e6 / d.Seconds() }
