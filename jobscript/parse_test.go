package jobscript_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/jobscript"
)

// parse reads a script of the given directives that must be right.
func parse(t *testing.T, script string, overrides ...jobscript.Directive) skyport.Request {
	t.Helper()
	request, err := jobscript.Parse([]byte(script), jobscript.Options{File: "job.sh", Overrides: overrides})
	if err != nil {
		t.Fatalf("Parse(%q): %v", script, err)
	}
	return request
}

// complaint is the text of what is wrong with a script, "" when nothing is.
func complaint(script string, overrides ...jobscript.Directive) string {
	_, err := jobscript.Parse([]byte(script), jobscript.Options{File: "job.sh", Overrides: overrides})
	if err == nil {
		return ""
	}
	return err.Error()
}

// set makes overrides of keywords and values in turn.
func set(words ...string) []jobscript.Directive {
	var list []jobscript.Directive
	for pair := range slices.Chunk(words, 2) {
		list = append(list, jobscript.Directive{Keyword: pair[0], Value: pair[1]})
	}
	return list
}

func TestMemory(t *testing.T) {
	t.Parallel()
	const mib = skyport.Bytes(1) << 20
	for _, c := range []struct {
		text string
		want skyport.Bytes // 0: refused
	}{
		{"512", 512 * mib},
		{"512M", 512 * mib},
		{"512MiB", 512 * mib},
		{"512 MiB", 512 * mib},
		{"512m", 512 * mib},
		{"4g", 4096 * mib},
		{"1.5GiB", 1536 * mib},
		{"0.5", 0},
		{"1.25", mib * 5 / 4},
		{"2048K", 2 * mib},
		{"2048KiB", 2 * mib},
		{"1048576B", mib},
		{"1048577B", mib + 1},
		{"0.000001T", 1099511},
		{"64T", 64 << 40},
		{"64.000001T", 0},
		{"65T", 0},
		{"1023K", 0},
		{"0", 0},
		{"-1G", 0},
		{"+1G", 0},
		{"1e3", 0},
		{"1_000", 0},
		{"4GB", 0},
		{"4MB", 0},
		{"4P", 0},
		{"4iB", 0},
		{"G", 0},
		{".5G", 0},
		{"1.G", 0},
		{"1..5G", 0},
		{"1.5.5G", 0},
		{"1.5B", 0},
		{"1.0000001G", 0},
		{"4294967296", 0}, // bytes, meant by somebody who must learn of MiB
		{"99999999999999999999999T", 0},
		{"18446744073709551615", 0},
		{"16777216T", 0}, // 2^64 bytes
		{"٤G", 0},
		{"inf", 0},
		{"0x10G", 0},
	} {
		got := skyport.Bytes(0)
		request, err := jobscript.Parse([]byte("#SWM memory "+c.text), jobscript.Options{})
		if err == nil {
			got = request.Memory
		}
		if got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("memory %s: got %d, %v; want %d", c.text, got, err, c.want)
		}
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	const refused = -1
	for _, c := range []struct {
		text string
		want int64 // seconds, where a bare number is minutes
	}{
		{"90", 5400},
		{"0", 0},
		{"090", 5400},
		{"90:30", 5430},
		{"0:30", 30},
		{"1:30:00", 5400},
		{"100:00:00", 360000},
		{"2-12", 216000},
		{"2-12:30", 217800},
		{"2-12:30:15", 217815},
		{"0-0", 0},
		{"10m", 600},
		{"1h30m", 5400},
		{"1h", 3600},
		{"45s", 45},
		{"90m", 5400},
		{"2d12h", 216000},
		{"1d1h1m1s", 90061},
		{"3650d", 315360000},
		{"3650-0", 315360000},
		{"3650-0:0:1", refused},
		{"9999999999999999999", refused},
		{"99999999999999999999d99999999999999999999h", refused},
		{"1:60", refused},
		{"1:60:00", refused},
		{"1:00:60", refused},
		{"1-24", refused},
		{"1-0:60", refused},
		{"1:2:3:4", refused},
		{"1-1:2:3:4", refused},
		{"1-", refused},
		{"-1", refused},
		{"-", refused},
		{":", refused},
		{"1:", refused},
		{":30", refused},
		{"1:030", refused},
		{"1-2-3", refused},
		{"1.5h", refused},
		{"1h90", refused},
		{"m", refused},
		{"30m1h", refused},
		{"1h1h", refused},
		{"1H", refused},
		{"10 m", refused},
		{"ten", refused},
		{"1w", refused},
		{"unlimited", refused},
	} {
		got := int64(refused)
		request, err := jobscript.Parse([]byte("#SWM time "+c.text+"\n#SWM keep-alive "+c.text), jobscript.Options{})
		if err == nil {
			got = int64(request.TimeLimit)
			if request.KeepAlive != request.TimeLimit {
				t.Errorf("%s: time is %d, keep-alive %d", c.text, request.TimeLimit, request.KeepAlive)
			}
		}
		if got != c.want {
			t.Errorf("time %s: got %d, %v; want %d", c.text, got, err, c.want)
		}
	}
	if got := parse(t, "#SWM checkpoint-interval 300").CheckpointInterval; got != 300 {
		t.Errorf("checkpoint-interval 300: got %d s, want 300", got)
	}
}

func TestSwitches(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"": true, "yes": true, "true": true, "on": true, "YES": true, "True": true,
		"no": false, "false": false, "off": false, "No": false,
	} {
		r := parse(t, "#SWM keep-resources "+text+"\n#SWM relocatable "+text+"\n#SWM checkpoint "+text)
		if r.KeepResources != want || r.Relocatable != want || r.Checkpoint != want {
			t.Errorf("%q: got %v %v %v, want %v", text, r.KeepResources, r.Relocatable, r.Checkpoint, want)
		}
	}
	for _, text := range []string{"1", "0", "y", "maybe", "yes no"} {
		if complaint("#SWM relocatable "+text) == "" {
			t.Errorf("relocatable %s was accepted", text)
		}
	}
}

func TestContainerImages(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct {
		image string
		ok    bool
	}{
		{"ubuntu", true},
		{"ubuntu:24.04", true},
		{"jupyter/datascience-notebook:hub-3.1.1", true},
		{"docker.io/library/python:3.13", true},
		{"localhost/mine", true},
		{"localhost:5000/mine:v1", true},
		{"Registry.Example.org:5000/a/b/c:V1.2_x-y", true},
		{"ubuntu@sha256:" + sum, true},
		{"ubuntu:24.04@sha256:" + sum, true},
		{"swmregistry.azurecr.io/openworkload/ubuntu:24.04", true},
		{"a__b--c/d.e_f", true},
		{"Ubuntu", false},
		{"docker://ubuntu", false},
		{"-v/:/host", false},
		{"--privileged", false},
		{"/abs/path", false},
		{"./local", false},
		{"../up", false},
		{"a//b", false},
		{"a/", false},
		{":tag", false},
		{"ubuntu:", false},
		{"ubuntu:-x", false},
		{"ubuntu:" + strings.Repeat("x", 129), false},
		{"ubuntu@", false},
		{"ubuntu@sha256:" + sum[1:], false},
		{"ubuntu@sha256:" + strings.ToUpper(sum), false},
		{"ubuntu@md5:" + sum, false},
		{"registry.example.org:port/x", false},
		{"ubuntu 24.04", false},
		{"ubuntu;rm", false},
		{"übuntu", false},
		{strings.Repeat("x", 600), false},
	} {
		if got := complaint("#SWM image " + c.image); (got == "") != c.ok {
			t.Errorf("%s: %q, want accepted %v", c.image, got, c.ok)
		}
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for host, ok := range map[string]bool{
		"192.0.2.1": true, "2001:db8::1": true, "localhost": true, "my-host.example.org": true,
		"example.org.": true, "host:80": false, "http://x": false, "a b": false, "-x": false,
		"a..b": false, ".": false, "[::1]": false, strings.Repeat("a.", 127) + "example": false,
	} {
		if got := complaint("#SWM submission-address " + host); (got == "") != ok {
			t.Errorf("%s: %q, want accepted %v", host, got, ok)
		}
	}
}

func TestQuotes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line string
		want []string
	}{
		{`a b`, []string{"a", "b"}},
		{"a \t  b", []string{"a", "b"}},
		{`'a b' "c d" e\ f`, []string{"a b", "c d", "e f"}},
		{`a' 'b`, []string{"a b"}},
		{`'it'\''s' "it's"`, nil}, // the same name twice: refused
		{`"say \"hi\"" "back\\slash" "\n"`, []string{`say "hi"`, `back\slash`, `\n`}},
		{`'\' \$x \é`, []string{`\`, "$x", "é"}},
		{`$HOME *.csv`, []string{"$HOME", "*.csv"}},
		{`a#b #c`, []string{"a#b", "#c"}},
	} {
		request, err := jobscript.Parse([]byte("#SWM input "+c.line), jobscript.Options{})
		if len(c.want) == 0 {
			if err == nil {
				t.Errorf("%s: got %q, want an error", c.line, request.InputFiles)
			}
			continue
		}
		if diff := cmp.Diff(c.want, request.InputFiles); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", c.line, err, diff)
		}
	}
	for _, path := range []string{"plain", "", " ", "a b", "it's", `"`, `\`, "tab\there", "$x*~", "'"} {
		if path == "" {
			continue // no path
		}
		if got := parse(t, "#SWM input x"+jobscript.Quote(path)).InputFiles[0]; got != "x"+path {
			t.Errorf("Quote(%q) reads back as %q", path, got)
		}
	}
}

func TestOverrides(t *testing.T) {
	t.Parallel()
	const script = `#!/bin/sh
#SWM name from the script
#SWM nodes 4
#SWM relocatable no
#SWM input-files a b
#SWM output-files x
#SWM ports 80,81
#SWM env A=1
#SWM env B=2
`
	base := parse(t, script)
	for _, c := range []struct {
		name      string
		overrides []jobscript.Directive
		change    func(*skyport.Request)
	}{
		{"none", nil, func(*skyport.Request) {}},
		{"scalar", set("nodes", "2", "flavor", "big"), func(r *skyport.Request) { r.Nodes, r.Flavor = 2, "big" }},
		{"last wins", set("nodes", "2", "nodes", "3"), func(r *skyport.Request) { r.Nodes = 3 }},
		{"bare switch", set("relocatable", "", "keep-resources", ""), func(r *skyport.Request) { r.Relocatable, r.KeepResources = true, true }},
		{"alias", set("image", "ubuntu"), func(r *skyport.Request) { r.ContainerImage = "ubuntu" }},
		{"lists replace", set("input-files", "c", "ports", "80/tcp/out"), func(r *skyport.Request) {
			r.InputFiles = []string{"c"}
			r.Ports = []skyport.Port{{Number: 80, Direction: skyport.Out}}
		}},
		{"several of a list add up", set("input", "c", "input-files", "a 'd e'"), func(r *skyport.Request) {
			r.InputFiles = []string{"c", "a", "d e"}
		}},
		{"env merges", set("env", "B=3", "env", "C=x y", "env", "C=z"), func(r *skyport.Request) {
			r.Env = map[string]string{"A": "1", "B": "3", "C": "z"}
		}},
		{"empty takes away", set("name", "", "nodes", " ", "input-files", "", "env", "", "ports", ""), func(r *skyport.Request) {
			r.Name, r.Nodes, r.InputFiles, r.Env, r.Ports = "", 1, nil, nil, nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			want := parse(t, script)
			c.change(&want)
			if diff := cmp.Diff(want, parse(t, script, c.overrides...)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(base, parse(t, script)); diff != "" {
				t.Errorf("Parse remembers overrides: %s", diff)
			}
		})
	}
}

func TestOverrideErrorsNameTheFlag(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		keyword, value string
		want, hint     string
	}{
		{"nodes", "two", `--nodes: expected a whole number from 1 to 10000, not "two"`, "for example: --nodes 2"},
		{"image", "Ubuntu", `--container-image: expected a name of lower-case letters and digits, with . _ or - between them, not "Ubuntu"`, "for example: --container-image docker.io/library/python:3.13"},
		{"flavour", "x", `unknown directive "--flavour"`, `did you mean "--flavor"?`},
		{"ports", "80,80", `--ports: port 80 is there twice`, "a port is forwarded once, in one direction"},
		{"output-files", "/abs", `--output-files: the path "/abs" is absolute`, "paths are relative to the work directory: write abs"},
		{"comment", "a\nb", `--comment: the value must not contain control characters`, "write it in UTF-8, without control characters"},
		{"comment", "a\xff", `--comment: the value must not contain bytes that are not UTF-8`, "write it in UTF-8, without control characters"},
	} {
		_, err := jobscript.Parse([]byte("true\n"), jobscript.Options{File: "job.sh", Overrides: set(c.keyword, c.value)})
		var e *skyport.Error
		if !errors.As(err, &e) || e.Message != c.want || e.Hint != c.hint || e.Line != 0 || e.Column != 0 {
			t.Errorf("--%s %q: got %v, hint %q; want %s, hint %q", c.keyword, c.value, err, skyport.HintOf(err), c.want, c.hint)
		}
	}
}

func TestWholeScripts(t *testing.T) {
	t.Parallel()
	blank := strings.Repeat("\n", jobscript.MaxSize-len("#SWM nodes 3"))
	if got := parse(t, blank+"#SWM nodes 3").Nodes; got != 3 {
		t.Errorf("a script of exactly MaxSize: %d nodes", got)
	}
	for _, c := range []struct {
		name, script, want string
		code               skyport.Code
	}{
		{"too large", blank + "#SWM nodes 3\n", "job.sh: the script is larger than 16.0 MiB", skyport.CodeTooLarge},
		{"empty", "", "job.sh: the script is empty", skyport.CodeInvalidScript},
		{"blank", " \r\n\t\n", "job.sh: the script is empty", skyport.CodeInvalidScript},
		{"binary", "#!/bin/sh\n\nabé\x00", "job.sh:3:4: the file is binary (it has a NUL byte), not a script", skyport.CodeInvalidScript},
		{"marked", "\uFEFF#SWM nodes 2", "job.sh:1:1: the script begins with a byte order mark, which hides its first line from the system", skyport.CodeInvalidScript},
	} {
		_, err := jobscript.Parse([]byte(c.script), jobscript.Options{File: "job.sh"})
		if err == nil || err.Error() != c.want || skyport.CodeOf(err) != c.code || skyport.HintOf(err) == "" {
			t.Errorf("%s: got %v, code %s, hint %q", c.name, err, skyport.CodeOf(err), skyport.HintOf(err))
		}
	}
	if got := complaint("#SWM nodes x\n#SWM cpus y"); strings.Count(got, "\n") != 1 {
		t.Errorf("want both errors, got %q", got)
	}
	if _, err := jobscript.Parse([]byte("#SWM nodes x"), jobscript.Options{}); !strings.HasPrefix(err.Error(), "job script:1:12: ") {
		t.Errorf("without a file name: %v", err)
	}
}

// A hostile script gets a bounded answer: few errors, bounded lists.
func TestBounds(t *testing.T) {
	t.Parallel()
	lines := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format+"\n", i)
		}
		return b.String()
	}
	_, err := jobscript.Parse([]byte(lines(100_000, "#SWM unheard-of-%d")), jobscript.Options{})
	var errs jobscript.Errors
	if !errors.As(err, &errs) || len(errs) != 20 {
		t.Errorf("%d errors, want 20", len(errs))
	}
	for _, c := range []struct {
		format string
		most   int // lines
		want   string
	}{
		{"#SWM input  f%08d", 10_240, "all paths together are longer than 102400 bytes"},
		{"#SWM output f%08d", 10_240, "all paths together are longer than 102400 bytes"},
		{"#SWM env A%06d=" + strings.Repeat("x", 503), 1024, "all variables together are larger than 524288 bytes"},
		{"#SWM ports 1%04d", 256, "more than 256 ports"},
	} {
		if got := complaint(lines(c.most, c.format)); got != "" {
			t.Errorf("%d of %.20s: %s", c.most, c.format, got)
		}
		if got := complaint(lines(c.most+1, c.format)); !strings.Contains(got, c.want) {
			t.Errorf("%d of %.20s: %q", c.most+1, c.format, got)
		}
	}
	for _, line := range []string{
		"#SWM ports " + strings.Repeat(",", 8<<20),
		"#SWM ports " + strings.Repeat(",", 500<<10),
		"#SWM input " + strings.Repeat("'' ", 4<<20),
		"#SWM input " + strings.Repeat("'' ", 150<<10),
		"#SWM stdin " + strings.Repeat("a ", 250<<10),
		"#SWM comment " + strings.Repeat("x", 500<<10),
		strings.Repeat("#SWM", 3<<20),
		strings.Repeat("#SWM\n", 3<<20),
	} {
		start := time.Now() // a second is usual; what grows with the square takes hours
		got := complaint(line)
		if took := time.Since(start); took > time.Minute || len(got) > 10<<10 {
			t.Errorf("%.20s…: took %v for %d bytes of errors", line, took, len(got))
		}
	}
	for _, value := range []string{strings.Repeat(",", 400<<10), strings.Repeat("'' ", 100<<10), strings.Repeat("x", 1<<20)} {
		if got := complaint("true", set("ports", value, "input", value, "stdin", value)...); got == "" || len(got) > 10<<10 {
			t.Errorf("override %.20s…: %d bytes of errors", value, len(got))
		}
	}
	// The bounds count what is meant, not how it is quoted: what is accepted
	// is accepted again in its normalised form.
	checkRoundTrip(t, parse(t, "#SWM env A='"+strings.Repeat(`"`, 60<<10)+" '"))
	checkRoundTrip(t, parse(t, lines(999, `#SWM input "'''''''''''''''''''''''''''''''''''''''''''''%d"`)))
	full := lines(10_240, "#SWM input f%08d")
	if got := complaint(full, set("input-files", "another", "input", "one")...); got != "" {
		t.Errorf("an override has no room in a list that it replaces: %s", got)
	}
	for _, line := range []string{
		"name " + strings.Repeat("x", 256),
		"comment " + strings.Repeat("x", 4097),
		"input " + strings.Repeat("x/", 2048) + "y",
		"output " + strings.Repeat("x", 256),
		"env A=" + strings.Repeat("x", 64<<10),
		"max-price 1000000.01",
		"max-price 0.0000000000000000000000000001",
		"max-price 1e5",
		"max-price NaN",
		"max-price 0x10",
		"max-price 2.",
		"max-price -1",
		"nodes 10001",
		"nodes +1",
		"nodes 1 # a remark",
	} {
		if complaint("#SWM "+line) == "" {
			t.Errorf("%.40s… was accepted", line)
		}
	}
}

// Every field of a request has a directive: the golden script that uses all of
// them leaves none at its default.
func TestEveryFieldHasADirective(t *testing.T) {
	t.Parallel()
	got := reflect.ValueOf(parse(t, goldenScript(t, "testdata/everything.sh")))
	usual := reflect.ValueOf(parse(t, "true"))
	for i := range got.NumField() {
		if reflect.DeepEqual(got.Field(i).Interface(), usual.Field(i).Interface()) {
			t.Errorf("testdata/everything.sh does not set Request.%s", got.Type().Field(i).Name)
		}
	}
}

// The normalised request goes over the wire as JSON and must not change there.
func TestRequestSurvivesJSON(t *testing.T) {
	t.Parallel()
	want := parse(t, goldenScript(t, "testdata/everything.sh"))
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got skyport.Request
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestErrorsUnwrap(t *testing.T) {
	t.Parallel()
	_, err := jobscript.Parse([]byte("\n\n#SWM flavour x\n#SWM nodes y"), jobscript.Options{File: "job.sh"})
	err = fmt.Errorf("submit: %w", err)
	var first *skyport.Error
	if !errors.As(err, &first) || first.Line != 3 || first.Column != 6 {
		t.Errorf("errors.As finds %+v, want the one of line 3, column 6", first)
	}
}

func BenchmarkParse(b *testing.B) {
	script := []byte(goldenScript(b, "testdata/everything.sh") + strings.Repeat("echo some work that is none of our business\n", 50))
	b.SetBytes(int64(len(script)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := jobscript.Parse(script, jobscript.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
