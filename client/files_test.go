package client_test

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/core/api/apitest"
	"github.com/openworkload/skyport/internal/transfer"
)

// write makes a tree of files.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// read reads a tree of files.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// noise is text that does not compress, the same each time.
func noise(n int) string {
	text := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(text) // cannot fail
	return string(text)
}

// withDepot is a backend that takes inputs.
func withDepot(t *testing.T) *apitest.Backend {
	t.Helper()
	depot, err := transfer.OpenDepot(filepath.Join(t.TempDir(), "depot"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := depot.Close(); err != nil {
			t.Error(err)
		}
	})
	return &apitest.Backend{Depot: depot}
}

func TestInputsAreStagedOnce(t *testing.T) {
	t.Parallel()
	b := withDepot(t)
	_, c := core(t, b)
	dir := t.TempDir()
	files := map[string]string{
		"book.txt":         noise(2_000_000),
		"models/a/one.bin": "one",
		"models/two.bin":   "two",
	}
	write(t, dir, files)
	var progress []skyport.Transfer
	sub := client.Submission{
		Script:   []byte("#!/bin/sh\n#SWM input-files book.txt models\n"),
		Dir:      dir,
		Progress: func(p skyport.Transfer) { progress = append(progress, p) },
	}
	job, err := c.Submit(t.Context(), sub)
	if err != nil {
		t.Fatal(err)
	}
	if len(job.Inputs) != 2 || job.Inputs[0].Name != "book.txt" || job.Inputs[1].Name != "models" || job.Inputs[1].Files != 2 {
		t.Fatalf("inputs: %+v", job.Inputs)
	}
	for _, in := range job.Inputs {
		if !b.Depot.Has(in.Manifest) {
			t.Errorf("%s is not in the depot", in.Name)
		}
	}
	end := progress[len(progress)-1]
	if end.Name != "inputs" || end.Done != end.Total || end.Total != 2_000_006 || end.Files != 3 || end.Wire == 0 {
		t.Errorf("last progress: %+v", end)
	}
	if !slices.IsSortedFunc(progress, func(x, y skyport.Transfer) int { return int(x.Done - y.Done) }) {
		t.Errorf("progress goes back: %+v", progress)
	}

	progress = nil
	if _, err := c.Submit(t.Context(), sub); err != nil {
		t.Fatal(err)
	}
	if again := progress[len(progress)-1]; again.Wire > end.Wire/10 {
		t.Errorf("sent again: %d bytes, %d the first time", again.Wire, end.Wire)
	}
}

func TestInputsThatCannotBe(t *testing.T) {
	t.Parallel()
	b := withDepot(t)
	_, c := core(t, b)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a/x": "1", "b/x": "2"})
	for name, test := range map[string]struct {
		paths []string
		want  skyport.Code
		says  string
	}{
		"not there":     {[]string{"none.txt"}, skyport.CodeInputUnreadable, "none.txt"},
		"one base name": {[]string{"a/x", "b/x"}, skyport.CodeInvalid, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Submit(t.Context(), client.Submission{Script: []byte(script), InputPaths: test.paths, Dir: dir})
			if skyport.CodeOf(err) != test.want || err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v (%s)", err, skyport.CodeOf(err))
			}
		})
	}
	_, err := c.Submit(t.Context(), client.Submission{Script: []byte("#!/bin/sh\n#SWM flavour x\n")})
	var e *skyport.Error
	if !errors.As(err, &e) || e.Code != skyport.CodeInvalidScript || e.Line != 2 {
		t.Errorf("a wrong script: %v", err)
	}
	for range c.Jobs(t.Context(), client.JobFilter{}) {
		t.Error("a refused submission left a job")
	}
}

// outputs are a scanned directory.
type outputs struct {
	*transfer.Tree
	missing []string
}

func (o outputs) Missing() []string { return o.missing }

func TestResultsArrive(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	server, c := core(t, b)
	job := submit(t, c)
	if _, err := c.Results(t.Context(), job.ID, t.TempDir(), nil); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("results before there are any: %v", err)
	}
	source := t.TempDir()
	files := map[string]string{"words.csv": strings.Repeat("light,1\n", 300_000), "plots/bars.svg": "<svg/>", "empty": "", "odd name #1%": "x"}
	write(t, source, files)
	tree, err := transfer.Scan(t.Context(), transfer.ScanOptions{Root: source})
	if err != nil {
		t.Fatal(err)
	}
	b.SetResults(job.ID, outputs{tree, []string{"late.txt"}})

	target := filepath.Join(t.TempDir(), "new", "place")
	cut := false
	var last skyport.Transfer
	got, err := c.Results(t.Context(), job.ID, target, func(p skyport.Transfer) {
		last = p
		if !cut {
			cut = true
			server.Cut()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Count != len(files) || !slices.Equal(got.Missing, []string{"late.txt"}) {
		t.Errorf("results: %+v", got)
	}
	if last.Done != got.Bytes || last.Total != got.Bytes {
		t.Errorf("last progress %+v, want %d bytes", last, got.Bytes)
	}
	if diff := cmp.Diff(files, read(t, target)); diff != "" {
		t.Errorf("files (-want +got):\n%.500s", diff)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file, err := c.ResultFile(t.Context(), job.ID, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, err := io.ReadAll(file)
		_ = file.Close() // it was only read
		if err != nil || string(text) != files[name] {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
	}
	if _, err := c.ResultFile(t.Context(), job.ID, "none"); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("a file that is not there: %v", err)
	}
}
