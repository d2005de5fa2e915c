package jobscript_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/jobscript"
)

// goldenScript is the upper part of a golden file.
func goldenScript(t testing.TB, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	script, _, _ := strings.Cut(string(content), dashes)
	return script
}

// FuzzParse feeds any bytes as a script, and any override. Parse must not
// panic; what it accepts must be within the bounds of the reference and must
// survive Format; what it refuses must have a place and a hint.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.sh")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add([]byte(goldenScript(f, file)), "", "")
	}
	for _, k := range jobscript.Keywords() {
		_, argument, _ := strings.Cut(strings.TrimPrefix(k.Example, "#SWM "), " ")
		f.Add([]byte(k.Example), k.Name, argument)
	}
	f.Fuzz(func(t *testing.T, script []byte, keyword, value string) {
		opts := jobscript.Options{File: "job.sh"}
		if keyword != "" {
			opts.Overrides = []jobscript.Directive{{Keyword: keyword, Value: value}}
		}
		request, err := jobscript.Parse(script, opts)
		if err != nil {
			checkErrors(t, script, err)
			return
		}
		checkRequest(t, request)
		checkRoundTrip(t, request)
	})
}

// TestFormat draws requests and checks that directives and requests say the
// same.
func TestFormat(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		request := requests().Draw(t, "request")
		checkRequest(t, request)
		checkRoundTrip(t, request)
	})
	if got, want := jobscript.Format(skyport.Request{Relocatable: true}), "#SWM nodes 1\n"; got != want {
		t.Errorf("Format of nothing is %q, want %q", got, want)
	}
}

// failer is what testing and rapid have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func checkRoundTrip(t failer, request skyport.Request) {
	t.Helper()
	text := jobscript.Format(request)
	again, err := jobscript.Parse([]byte(text), jobscript.Options{})
	if err != nil {
		t.Fatalf("the normalised form is refused: %v\n%s", err, text)
	}
	if diff := cmp.Diff(request, again); diff != "" {
		t.Fatalf("the normalised form says something else:\n%s\n%s", text, diff)
	}
	if twice := jobscript.Format(again); twice != text {
		t.Fatalf("Format is not stable: %q, then %q", text, twice)
	}
}

// checkRequest holds an accepted request against the promises that others rely
// on: whoever runs it need not check again.
func checkRequest(t failer, r skyport.Request) {
	t.Helper()
	if r.Nodes < 1 || r.Nodes > 10_000 || r.CPUs < 0 || r.GPUs < 0 || r.Retries < 0 || r.Memory < 0 ||
		r.TimeLimit < 0 || r.KeepAlive < 0 || r.CheckpointInterval < 0 || !(r.MaxPrice >= 0) {
		t.Fatalf("a number is out of bounds: %+v", r)
	}
	for _, p := range append([]string{r.Stdin, r.Stdout, r.Stderr}, r.OutputFiles...) {
		if p != "" && (!filepath.IsLocal(p) || p != filepath.Clean(p) || p == ".") {
			t.Fatalf("%q is no clean path inside the work directory", p)
		}
	}
	landed := map[string]bool{}
	for _, p := range r.InputFiles {
		base := filepath.Base(filepath.Clean(p))
		if landed[base] || base == "." || base == ".." || base == "/" {
			t.Fatalf("input %q has no place of its own in the work directory", p)
		}
		landed[base] = true
	}
	numbers := map[int]bool{}
	for _, p := range r.Ports {
		if numbers[p.Number] || p.Number < 1 || p.Number > 65535 || p.Direction != skyport.In && p.Direction != skyport.Out {
			t.Fatalf("port %v", p)
		}
		numbers[p.Number] = true
	}
	texts := append([]string{
		r.Name, r.Comment, r.Account, r.Site, r.Flavor, r.CloudImage, r.ContainerImage,
		r.WorkDir, r.SubmissionAddress, r.Storage, r.CheckpointDir,
	}, r.InputFiles...)
	for name, text := range r.Env {
		texts = append(texts, name, text)
	}
	for _, text := range texts {
		if !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\n\r\x1b") {
			t.Fatalf("%q is no printable text", text)
		}
	}
}

func checkErrors(t failer, script []byte, err error) {
	t.Helper()
	var errs jobscript.Errors
	if !errors.As(err, &errs) || len(errs) == 0 {
		t.Fatalf("%T is not Errors: %v", err, err)
	}
	lines := strings.Split(string(script), "\n")
	for _, e := range errs {
		if e.Message == "" || e.Hint == "" || !utf8.ValidString(e.Message) {
			t.Fatalf("error %q, hint %q", e.Message, e.Hint)
		}
		if e.Line == 0 && e.Column == 0 {
			continue // of the whole script, or of an override
		}
		if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > utf8.RuneCountInString(lines[e.Line-1])+1 {
			t.Fatalf("%d:%d is no place of the script: %v", e.Line, e.Column, e)
		}
	}
}

// requests draws requests that Parse could have returned.
func requests() *rapid.Generator[skyport.Request] {
	text := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[!-~äß世]([ -~\täß世]{0,20}[!-~äß世])?`))
	component := rapid.StringMatching(`[!-.0-}ä]([ !-.0-}ä]{0,10})`).Filter(func(s string) bool { return s != "." && s != ".." })
	relative := rapid.Map(rapid.SliceOfN(component, 1, 4), func(parts []string) string { return strings.Join(parts, "/") })
	absolute := rapid.Map(relative, func(p string) string { return "/" + p })
	maybe := func(g *rapid.Generator[string]) *rapid.Generator[string] { return rapid.OneOf(rapid.Just(""), g) }
	seconds := rapid.OneOf(rapid.Just[int64](0), rapid.Int64Range(0, 3650*24*3600))
	return rapid.Custom(func(t *rapid.T) skyport.Request {
		r := skyport.Request{
			Name:               text.Draw(t, "name"),
			Comment:            text.Draw(t, "comment"),
			Account:            text.Draw(t, "account"),
			Site:               text.Draw(t, "site"),
			Flavor:             text.Draw(t, "flavor"),
			CloudImage:         text.Draw(t, "cloud image"),
			ContainerImage:     maybe(rapid.StringMatching(`([a-z]{1,5}\.[a-z]{2}(:[0-9]{1,4})?/)?[a-z0-9]{1,8}(/[a-z0-9]{1,4}([._-][a-z0-9]{1,4})?){0,2}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,9})?(@sha256:[0-9a-f]{64})?`)).Draw(t, "container image"),
			Nodes:              rapid.IntRange(1, 10_000).Draw(t, "nodes"),
			CPUs:               rapid.IntRange(0, 10_000).Draw(t, "cpus"),
			Memory:             skyport.Bytes(rapid.OneOf(rapid.Just[int64](0), rapid.Int64Range(1<<20, 64<<40)).Draw(t, "memory")),
			GPUs:               rapid.IntRange(0, 1024).Draw(t, "gpus"),
			MaxPrice:           float64(rapid.Int64Range(0, 1e11).Draw(t, "price")) / 1e5,
			Spot:               rapid.SampledFrom([]skyport.Spot{"", skyport.SpotYes, skyport.SpotPrefer}).Draw(t, "spot"),
			TimeLimit:          skyport.Seconds(seconds.Draw(t, "time")),
			Priority:           rapid.IntRange(-10_000, 10_000).Draw(t, "priority"),
			Retries:            rapid.IntRange(0, 100).Draw(t, "retries"),
			KeepAlive:          skyport.Seconds(seconds.Draw(t, "keep-alive")),
			KeepResources:      rapid.Bool().Draw(t, "keep-resources"),
			Relocatable:        rapid.Bool().Draw(t, "relocatable"),
			WorkDir:            maybe(rapid.OneOf(relative, absolute)).Draw(t, "workdir"),
			Stdin:              maybe(relative).Draw(t, "stdin"),
			Stdout:             maybe(relative).Draw(t, "stdout"),
			Stderr:             maybe(relative).Draw(t, "stderr"),
			SubmissionAddress:  maybe(rapid.SampledFrom([]string{"192.0.2.1", "2001:db8::1", "host.example.org"})).Draw(t, "address"),
			Storage:            text.Draw(t, "storage"),
			Checkpoint:         rapid.Bool().Draw(t, "checkpoint"),
			CheckpointDir:      maybe(rapid.OneOf(relative, absolute)).Draw(t, "checkpoint-dir"),
			CheckpointInterval: skyport.Seconds(seconds.Draw(t, "checkpoint-interval")),
		}
		if outputs := rapid.SliceOfNDistinct(relative, 0, 4, rapid.ID[string]).Draw(t, "outputs"); len(outputs) > 0 {
			r.OutputFiles = outputs
		}
		if inputs := rapid.SliceOfNDistinct(rapid.OneOf(relative, absolute), 0, 4, filepath.Base).Draw(t, "inputs"); len(inputs) > 0 {
			r.InputFiles = inputs
		}
		numbers := rapid.SliceOfNDistinct(rapid.IntRange(1, 65535), 0, 4, rapid.ID[int]).Draw(t, "ports")
		for _, n := range numbers {
			direction := rapid.SampledFrom([]skyport.Direction{skyport.In, skyport.Out}).Draw(t, "direction")
			r.Ports = append(r.Ports, skyport.Port{Number: n, Direction: direction})
		}
		value := rapid.StringMatching(`[ -~\tä]{0,12}`)
		name := rapid.StringMatching(`[A-RT-Za-z_][A-Za-z0-9_]{0,8}`)
		if env := rapid.MapOfN(name, value, 0, 4).Draw(t, "env"); len(env) > 0 {
			r.Env = env
		}
		return r
	})
}
