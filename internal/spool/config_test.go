package spool

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openworkload/skyport"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The file that setup writes explains every setting and changes none.
func TestTheDefaultFileSaysTheDefaults(t *testing.T) {
	t.Parallel()
	config, err := parseConfig("skyport.yaml", []byte(defaultConfig), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Defaults(), config); diff != "" {
		t.Errorf("skyport.yaml differs from Defaults (-defaults +file):\n%s", diff)
	}
	for variable, key := range variableKeys {
		name := key[strings.LastIndex(key, ".")+1:]
		if !strings.Contains(defaultConfig, name+":") {
			t.Errorf("skyport.yaml does not show %s (%s)", key, variable)
		}
	}
}

func TestEmptyConfigurationsAreTheDefaults(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "comment": "# nothing\n", "empty section": "core:\n", "document": "---\n"} {
		config, err := parseConfig("skyport.yaml", []byte(text), []string{"SWM_SPOOL=/x", "SWM_JOB_ID=1", "PATH=/bin"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(Defaults(), config); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "none.yaml")); err != nil {
		t.Errorf("no file: %v", err)
	}
}

func TestEnvironmentWinsOverTheFile(t *testing.T) {
	t.Parallel()
	text := "core:\n  listen: \":1\"\ngate:\n  listen: \":2\"\nlimits: {script: 1MiB}\n"
	config, err := parseConfig("skyport.yaml", []byte(text), []string{
		"SWM_CORE_LISTEN=:3", "SWM_LOCAL_ENABLED=false", "SWM_LOCAL_CPUS=4", "SWM_LOCAL_MEMORY=2GiB", "SWM_LOCAL_PRICE=0.25",
		"SWM_KEEP_ALIVE=90s", "SWM_LIMITS_RETENTION=7d", "SWM_LOG_LEVEL=debug", "SWM_FORWARD_ADDRESS=10.0.0.0/28",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Core.Listen, want.Gate.Listen, want.Limits.Script = ":3", ":2", 1<<20
	want.Local = LocalConfig{Enabled: false, CPUs: 4, Memory: 2 << 30, Price: 0.25}
	want.KeepAlive, want.Limits.Retention, want.Log.Level = 90*time.Second, 7*24*time.Hour, "debug"
	want.Forward.Address = "10.0.0.0/28"
	if diff := cmp.Diff(want, config); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAccountsOfTheFileReplaceTheDefault(t *testing.T) {
	t.Parallel()
	config, err := parseConfig("skyport.yaml", []byte("accounts:\n  - {name: lab, users: [alice, bob], sites: [local]}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []AccountConfig{{Name: "lab", Users: []string{"alice", "bob"}, Sites: []string{"local"}}}
	if diff := cmp.Diff(want, config.Accounts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	config, err := parseConfig("skyport.yaml", []byte(`
accounts:
  - {name: a, users: ["*"], sites: ["*"], budget: {amount: 500, currency: USD}}
  - {name: b, users: ["*"], sites: ["*"], budget: {amount: 0.5, period: total, end_jobs: true}}
  - {name: c, users: ["*"], sites: ["*"]}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []*skyport.Budget
	for i := range config.Accounts {
		got = append(got, config.Accounts[i].Budget.Budget())
	}
	want := []*skyport.Budget{
		{Amount: 500, Currency: "USD", Period: skyport.BudgetMonth}, {Amount: 0.5, Period: skyport.BudgetTotal, EndJobs: true}, nil,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Each file of testdata/config holds a configuration, a line of dashes, and the
// error with its hint. Lines that begin with SWM_ go to the environment.
func TestMistakesAreExplained(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/config/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(golden), "----\n")
			var environ, lines []string
			for line := range strings.Lines(input) {
				if strings.HasPrefix(line, "SWM_") {
					environ = append(environ, strings.TrimSuffix(line, "\n"))
				} else {
					lines = append(lines, line)
				}
			}
			_, err = parseConfig("skyport.yaml", []byte(strings.Join(lines, "")), environ)
			if skyport.CodeOf(err) != skyport.CodeInvalid {
				t.Fatalf("%v, want an error of code invalid", err)
			}
			got := err.Error() + "\nhint: " + skyport.HintOf(err) + "\n"
			if *update {
				if err := os.WriteFile(file, []byte(input+"----\n"+got), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseBytes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]skyport.Bytes{
		"0": 0, "1": 1, "1024": 1024, "1B": 1, "1K": 1 << 10, "1KiB": 1 << 10, "2kb": 2 << 10, "16MiB": 16 << 20, "16 MiB": 16 << 20, "3g": 3 << 30, "1TiB": 1 << 40,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v: want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "1.5GiB", "GiB", "1PiB", "1KM", "1x", "9999999999GiB", "1 1", "1iB "} {
		if got, err := ParseBytes(text); err == nil && text != "1iB " {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, got)
		}
	}
}

func TestEditDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to string
		want     int
	}{{"", "", 0}, {"a", "", 1}, {"listen", "lisen", 1}, {"kitten", "sitting", 3}, {"log", "core", 3}} {
		if got := editDistance(c.from, c.to); got != c.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", c.from, c.to, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-c]{0,6}`)
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		if editDistance(a, b) != editDistance(b, a) || editDistance(a, c) > editDistance(a, b)+editDistance(b, c) ||
			(editDistance(a, b) == 0) != (a == b) {
			t.Fatalf("no distance: %q %q %q", a, b, c)
		}
	})
}

// Whatever the file holds, there is an answer and no panic, and what is
// accepted is valid.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(defaultConfig))
	f.Add([]byte("core: [1, 2]\nlocal: 7\naccounts: {a: b}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? [x]\n: y\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		config, err := parseConfig("skyport.yaml", content, nil)
		if err == nil && len(config.problems()) > 0 {
			t.Errorf("accepted with problems %v", config.problems())
		}
	})
}
