package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/openworkload/skyport"

// A build failure, a test that never ended, a failed and a skipped one.
const events = `{"Action":"start","Package":"github.com/openworkload/skyport/gate"}
{"Action":"run","Package":"github.com/openworkload/skyport/gate","Test":"TestA"}
{"Action":"output","Package":"github.com/openworkload/skyport/gate","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"github.com/openworkload/skyport/gate","Test":"TestA","Output":"--- PASS: TestA (6.00s)\n"}
{"Action":"pass","Package":"github.com/openworkload/skyport/gate","Test":"TestA","Elapsed":6}
{"Action":"run","Package":"github.com/openworkload/skyport/gate","Test":"TestB"}
{"Action":"output","Package":"github.com/openworkload/skyport/gate","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"github.com/openworkload/skyport/gate","Test":"TestB","Output":"    gate_test.go:9: needs a moon\n"}
{"Action":"output","Package":"github.com/openworkload/skyport/gate","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"github.com/openworkload/skyport/gate","Test":"TestB","Elapsed":0}
{"Action":"output","Package":"github.com/openworkload/skyport/gate","Output":"PASS\n"}
{"Action":"output","Package":"github.com/openworkload/skyport/gate","Output":"coverage: 50.0% of statements\n"}
{"Action":"output","Package":"github.com/openworkload/skyport/gate","Output":"ok  \tgithub.com/openworkload/skyport/gate\t6.1s\tcoverage: 50.0% of statements\n"}
{"Action":"pass","Package":"github.com/openworkload/skyport/gate","Elapsed":6.1}
`

const broken = `{"ImportPath":"github.com/openworkload/skyport/client","Action":"build-output","Output":"client.go:1: syntax error\n"}
{"ImportPath":"github.com/openworkload/skyport/client","Action":"build-fail"}
{"Action":"output","Package":"github.com/openworkload/skyport/client","Output":"FAIL\tgithub.com/openworkload/skyport/client [build failed]\n"}
{"Action":"fail","Package":"github.com/openworkload/skyport/client","Elapsed":0,"FailedBuild":"github.com/openworkload/skyport/client"}
{"Action":"run","Package":"github.com/openworkload/skyport/jobscript","Test":"TestC"}
{"Action":"output","Package":"github.com/openworkload/skyport/jobscript","Test":"TestC","Output":"panic: oh\n"}
{"Action":"output","Package":"github.com/openworkload/skyport/jobscript","Output":"FAIL\tgithub.com/openworkload/skyport/jobscript\t0.1s\n"}
{"Action":"fail","Package":"github.com/openworkload/skyport/jobscript","Elapsed":0.1}
`

func TestFollowPrintsWhatGoTestWouldAndWhyTestsFailed(t *testing.T) {
	var out strings.Builder
	if ok, err := run([]string{"follow"}, strings.NewReader("go: a line of no event\n"+events+broken), &out); !ok || err != nil {
		t.Fatalf("follow: %v, %v", ok, err)
	}
	want := "go: a line of no event\n" +
		"ok  \t" + module + "/gate\t6.1s\tcoverage: 50.0% of statements\n" +
		"client.go:1: syntax error\n" +
		"FAIL\t" + module + "/client [build failed]\n" +
		"panic: oh\nFAIL\t" + module + "/jobscript\t0.1s\n"
	if out.String() != want {
		t.Errorf("follow printed\n%s\nwant\n%s", out.String(), want)
	}
}

func TestReportCountsAndExplains(t *testing.T) {
	profile := "mode: atomic\n" + module + "/gate/gate.go:1.1,2.2 3 0\n" + module + "/gate/gate.go:1.1,2.2 3 7\n" + module + "/gate/gate.go:3.1,4.2 1 0\n"
	for _, test := range []struct {
		name, events, parts string
		ok                  bool
		holds               []string
		closing             string
	}{
		{
			"all well", events, "vet\tpass\t3\t\nlint\tskip\t0\tno network\ntests\tpass\t9\t\n", true,
			[]string{"./gate TestB (0.0 s) gate_test.go:9: needs a moon", "make test: lint (0.0 s) no network", "75.0%", "slowest:\n  ./gate TestA (6.0 s)"},
			"3 passed, 0 failed, 2 skipped",
		},
		{"failed tests", events + broken, "tests\tfail\t9\texit code 1\n", false, []string{"./client (0.0 s)", "./jobscript TestC"}, "1 passed, 2 failed, 1 skipped"},
		{"a failed part", events, "demo\tfail\t9\texit code 1\n", false, []string{"make test: demo (9.0 s) exit code 1"}, "1 passed, 1 failed, 1 skipped"},
		{"tests that broke down unseen", events, "tests\tfail\t9\texit code 2\n", false, []string{"make test: tests"}, "1 passed, 1 failed, 1 skipped"},
		{"nothing", "", "", false, []string{"no test ran"}, "0 passed, 0 failed, 0 skipped"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			args := []string{"report"}
			for flag, content := range map[string]string{"-events": test.events, "-cover": profile, "-parts": test.parts} {
				path := filepath.Join(dir, flag)
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, flag, path)
			}
			if test.events == "" {
				args = args[:1]
			}
			var out strings.Builder
			ok, err := run(args, nil, &out)
			if ok != test.ok || err != nil {
				t.Errorf("report: %v, %v, want %v", ok, err, test.ok)
			}
			for _, want := range test.holds {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the report lacks %q:\n%s", want, out.String())
				}
			}
			if !strings.HasSuffix(out.String(), "\n"+test.closing+"\n") {
				t.Errorf("the report does not close with %q:\n%s", test.closing, out.String())
			}
		})
	}
}
