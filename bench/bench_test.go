package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if child(os.Args[1:]) {
		return
	}
	os.Exit(m.Run())
}

// TestShort measures everything, with small numbers, against the real program.
func TestShort(t *testing.T) {
	t.Parallel()
	program := filepath.Join("..", "bin", "skyport")
	if _, err := os.Stat(program); err != nil {
		t.Skipf("%v: make build makes it", err)
	}
	dir, out := t.TempDir(), t.TempDir()
	if err := run(t.Context(), setting{program: program, dir: dir, out: out, short: true, size: small, what: measurements}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	written, err := filepath.Glob(filepath.Join(out, "*.json"))
	if err != nil || len(written) != 1 {
		t.Fatalf("reports written: %q, %v", written, err)
	}
	data, err := os.ReadFile(written[0])
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if !r.Short || r.Machine.Cores < 1 || r.Machine.Memory < 1 || r.Machine.Kernel == "" || r.Machine.FileSystem == "" {
		t.Errorf("the report is of short=%v, machine %+v", r.Short, r.Machine)
	}
	seen := map[string]bool{}
	for _, row := range r.Rows {
		seen[row.Measurement] = true
		if row.Value <= 0 && row.Verdict != "skipped" {
			t.Errorf("%s, %s: %v %s", row.Measurement, row.What, row.Value, row.Unit)
		}
		if (row.Aim != "") != (row.Verdict == "ok" || row.Verdict == "missed") {
			t.Errorf("%s, %s: aim %q, verdict %q", row.Measurement, row.What, row.Aim, row.Verdict)
		}
	}
	for _, m := range measurements {
		if !seen[m.name] {
			t.Errorf("%s gave no figure", m.name)
		}
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		value float64
		aim   aim
		want  string
	}{
		{49.9, under(50), "ok"},
		{50, under(50), "missed"},
		{2000, atLeast(2000), "ok"},
		{1999, atLeast(2000), "missed"},
		{7, aim{}, ""},
	} {
		var r report
		r.add("", test.value, "", test.aim, "")
		if got := r.Rows[0].Verdict; got != test.want {
			t.Errorf("%v with the aim %+v: %q, want %q", test.value, test.aim, got, test.want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var s series
	for i := range 100 {
		s = append(s, time.Duration(100-i))
	}
	before := slices.Clone(s)
	if m, p := s.median(), s.quantile(0.99); m != 51 || p != 100 {
		t.Errorf("of 1 to 100: median %d, p99 %d; want 51 and 100", m, p)
	}
	if !slices.Equal(s, before) {
		t.Error("the series was changed")
	}
	if one := (series{7}); one.median() != 7 || one.quantile(1) != 7 {
		t.Error("of one value the median or the maximum is another")
	}
}
