package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mattn/go-runewidth"
	"pgregory.net/rapid"

	"github.com/openworkload/skyport"
)

func TestDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second:                    "0s",
		0:                               "0ms",
		999 * time.Millisecond:          "999ms",
		1290 * time.Millisecond:         "1.2s",
		9990 * time.Millisecond:         "9.9s",
		59*time.Second + 999*1e6:        "59s",
		3*time.Minute + 2*time.Second:   "3m02s",
		26*time.Hour + 5*time.Minute:    "1d02h",
		23*time.Hour + 59*time.Minute:   "23h59m",
		100*24*time.Hour + 12*time.Hour: "100d12h",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Hour: "now", 0: "now", 59 * time.Second: "59s", time.Minute: "1m", 47 * time.Hour: "47h", 48 * time.Hour: "2d",
	} {
		if got := age(now.Add(-d), now); got != want {
			t.Errorf("age of %v = %q, want %q", d, got, want)
		}
	}
	if got := age(time.Time{}, now); got != "-" {
		t.Errorf("age of no time = %q, want -", got)
	}
}

func TestPlainObeysNothing(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"\x1b[31mred\x1b[0m":  "·[31mred·[0m",
		"a\rb\x00c":           "a·b·c",
		"\u202eevil":          "·evil",
		"bad\xffbyte":         "bad·byte",
		"größe → naïve 東京":    "größe → naïve 東京",
		"two\nlines\tand tab": "two\nlines\tand tab",
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}

func sampleTable() *table {
	t := &table{columns: []column{
		{title: "JOB"}, {title: "NAME", flex: true}, {title: "SITE", rank: 1}, {title: "RUN", right: true}, {title: "DETAILS", flex: true, rank: 2},
	}}
	t.add(text("1a2b3c4d"), text("東京の天気"), text("local"), text("4.2s"), text("Running on swm-1a2b3c4d-main since a while"))
	t.add(text("5e6f7a8b"), text("a very long name of a job that nobody needs"), text("azure-west"), text("1h05m"), text("one\nline"))
	return t
}

func TestTable(t *testing.T) {
	t.Parallel()
	for _, width := range []int{0, 100, 60, 30} {
		var b bytes.Buffer
		s := &screen{w: &b, width: width}
		sampleTable().print(s)
		golden(t, fmt.Sprintf("table-%d.golden", width), b.String())
	}
}

func TestTableWithoutRows(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	(&table{columns: []column{{title: "X"}}, empty: "Nothing."}).print(&screen{w: &b})
	if b.String() != "Nothing.\n" {
		t.Errorf("an empty table prints %q", b.String())
	}
}

// TestTableFits draws tables and terminals: no line is wider than the terminal
// as long as the columns that cannot be cut fit.
func TestTableFits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tab := table{columns: []column{
			{title: "A"}, {title: "B", flex: true, rank: rapid.IntRange(0, 2).Draw(t, "rank")}, {title: "C", right: true, rank: 1}, {title: "D", flex: true},
		}}
		for range rapid.IntRange(1, 5).Draw(t, "rows") {
			tab.add(text(rapid.StringN(0, 8, 8).Draw(t, "a")), text(rapid.String().Draw(t, "b")), text(rapid.StringN(0, 6, 6).Draw(t, "c")), text(rapid.String().Draw(t, "d")))
		}
		width := rapid.IntRange(45, 120).Draw(t, "width")
		var b bytes.Buffer
		tab.print(&screen{w: &b, width: width})
		for line := range strings.Lines(b.String()) {
			if w := runewidth.StringWidth(strings.TrimSuffix(line, "\n")); w > width {
				t.Fatalf("a line of %d columns on a terminal of %d: %q", w, width, line)
			}
		}
		if n := strings.Count(b.String(), "\n"); n != len(tab.rows)+1 {
			t.Fatalf("%d lines for %d rows", n, len(tab.rows))
		}
	})
}

func TestProgressInLines(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	a := &app{Err: &screen{w: &b}, Now: func() time.Time { return now }}
	p := a.newProgress("upload inputs")
	for i := range 100 {
		p.update(skyport.Bytes(i)<<20, 100<<20)
		now = now.Add(50 * time.Millisecond)
	}
	p.update(100<<20, 100<<20)
	p.end(true)
	want := []string{
		"upload inputs: 20% of 100.0 MiB", "upload inputs: 40% of 100.0 MiB", "upload inputs: 60% of 100.0 MiB",
		"upload inputs: 80% of 100.0 MiB", "upload inputs: 100.0 MiB in 5.0s", "",
	}
	if diff := cmp.Diff(want, strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("a transfer of five seconds (-want +got):\n%s", diff)
	}
}

func TestTimeline(t *testing.T) {
	t.Parallel()
	at := func(ms int) time.Time {
		return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
	}
	var b bytes.Buffer
	printTimeline(&screen{w: &b}, []skyport.Step{
		{Name: "queued", Start: at(0), End: at(40)},
		{Name: "nodes", Start: at(40), End: at(450), Note: "a new partition"},
		{Name: "upload", Start: at(450), End: at(700), Bytes: 567198},
		{Name: "run", Start: at(700), End: at(4200)},
		{Name: "download", Start: at(4200), End: at(4300), Bytes: 81 << 10},
		{Name: "removal", Start: at(4300)},
	}, at(5000))
	golden(t, "timeline.golden", b.String())
}

func TestShellQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "''", "plain": "plain", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "x=1": "'x=1'", "a\nb": "'a\nb'",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}
