package architecture

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/openworkload/skyport"

// rooms says what of ours each room may import besides itself, tests left
// aside. A name ending in /... is a room with all that is in it; of several
// that match a package, the longest counts. The root, ".", has the words: it
// knows nothing, and everything knows it.
var rooms = map[string][]string{
	".":          {},
	"jobscript":  {"."},
	"client/...": {".", "jobscript", "internal/forward", "internal/session", "internal/transfer"},

	// The kit for gate writers knows neither core nor any provider, and no provider another.
	"gate":               {"."},
	"gate/gatetest":      {".", "gate"},
	"gate/live":          {".", "gate"},
	"gate/local/...":     {".", "gate", "internal/worker/..."},
	"gate/ssh/...":       {".", "gate", "internal/bootstrap"},
	"gate/cloud":         {".", "gate"},
	"gate/cloud/...":     {".", "gate", "gate/cloud"},
	"gate/azure/...":     {".", "gate", "gate/cloud"},
	"gate/openstack/...": {".", "gate", "gate/cloud"},
	"gate/aws/...":       {".", "gate", "gate/cloud"},
	"gate/...":           {".", "gate"},
	"internal/pki":       {"."},
	"internal/spool":     {".", "internal/pki"},
	"internal/serve":     {},
	"internal/transfer":  {"."},
	"internal/forward":   {"."},
	"internal/session":   {"."},
	"internal/seal":      {"."},
	"internal/bootstrap": {"."},

	// The worker runs on nodes, far from everything else.
	"internal/worker/...":    {".", "internal/forward", "internal/session", "internal/transfer"},
	"internal/workerbin/...": {"."},

	// Core wires its rooms. Among these the arrows point one way: what drives jobs knows what
	// stores and plans them, and the API knows none of them.
	"internal/core": {
		".", "gate", "jobscript", "internal/bootstrap", "internal/core/...", "internal/forward", "internal/pki", "internal/seal", "internal/serve",
		"internal/spool", "internal/transfer", "internal/worker/protocol", "internal/workerbin",
	},
	"internal/core/admission": {".", "jobscript", "internal/core/schedule"},
	"internal/core/api/...":   {".", "internal/forward", "internal/transfer", "internal/worker/protocol"},
	"internal/core/archive":   {".", "internal/transfer"},
	"internal/core/catalog":   {".", "gate", "internal/core/store"},
	"internal/core/cost":      {"."},
	"internal/core/lifecycle": {
		".", "gate", "internal/bootstrap", "internal/seal", "internal/core/archive", "internal/core/cost", "internal/core/link",
		"internal/core/schedule", "internal/core/store", "internal/forward", "internal/transfer", "internal/worker/protocol",
	},
	"internal/core/link":      {".", "internal/bootstrap", "internal/worker/protocol", "internal/workerbin"},
	"internal/core/schedule":  {"."},
	"internal/core/store/...": {".", "internal/core/cost"},

	"cmd/skyport": {
		".", "client", "gate/...", "jobscript", "internal/core", "internal/pki", "internal/serve", "internal/session",
		"internal/spool", "internal/transfer", "internal/workerbin",
	},
	"cmd/skyport-worker":  {"internal/worker/..."},
	"examples/...":        {},
	"examples/gate":       {".", "gate", "gate/gatetest"},
	"examples/remote/...": {"test/registry"},
	"images/...":          {},

	// What measures and tries the whole may look everywhere.
	"bench/...": {"..."},
	"docs/...":  {"..."},
	"test/...":  {"..."},
}

// outside says which packages of others have one home only.
var outside = map[string][]string{
	"database/sql":                              {"internal/core/store/..."},
	"modernc.org/sqlite":                        {"internal/core/store/..."},
	"github.com/pressly/goose/...":              {"internal/core/store/..."},
	"github.com/spf13/cobra/...":                {"cmd/skyport"},
	"charm.land/huh/...":                        {"cmd/skyport"},
	"github.com/vbauerster/mpb/...":             {"cmd/skyport"},
	"github.com/danielgtaylor/huma/...":         {"internal/core/api", "gate", "internal/worker"},
	"github.com/knadh/koanf/...":                {"internal/spool"},
	"github.com/PlakarKorp/go-cdc-chunkers/...": {"internal/transfer"},
	"golang.org/x/crypto/ssh/...":               {"internal/bootstrap", "internal/core/link", "gate/ssh"},
	"github.com/moby/moby/...":                  {"internal/worker/runtime", "gate/docker"},
	"github.com/Azure/...":                      {"gate/azure"},
	"github.com/gophercloud/...":                {"gate/openstack"},
	"github.com/aws/...":                        {"gate/aws"},
}

// daemons are the files of cmd/skyport that know core and gate, as they run
// them, or try what a gate would. All others are terminals, and speak to core
// through package client.
var daemons = []string{"core.go", "gate.go", "gate_check.go", "gate_clouds.go", "up.go"}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Doc        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// room is the path of the package within the module, "." for the root.
func (p pkg) room() string { return within(p.ImportPath) }

func within(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func ours(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// packages lists the packages that have more than tests.
func packages(t *testing.T) []pkg {
	t.Helper()
	list := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,GoFiles,Imports,Deps", "./...")
	list.Dir = filepath.Join("..", "..")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for in := json.NewDecoder(strings.NewReader(string(out))); in.More(); {
		var p pkg
		if err := in.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages found", len(all))
	}
	return all
}

// match tells whether a path is of a pattern, as the go command has them.
func match(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if dir, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == dir || strings.HasPrefix(path, dir+"/")
	}
	return path == pattern
}

func matchAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, path) })
}

// longest is the pattern that says most about a path, or "": the path itself
// before those that end in /....
func longest(path string) string {
	found := ""
	for pattern := range rooms {
		if pattern == path {
			return pattern
		}
		if match(pattern, path) && len(pattern) > len(found) {
			found = pattern
		}
	}
	return found
}

func TestRoomsKnowOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		pattern := longest(p.room())
		if pattern == "" {
			t.Errorf("%s is no room: say in rooms what it may import", p.room())
			continue
		}
		for _, path := range p.Imports {
			if ours(path) && !match(pattern, within(path)) && !matchAny(rooms[pattern], within(path)) {
				t.Errorf("%s must not import %s", p.room(), within(path))
			}
			for home, may := range outside {
				if match(home, path) && !matchAny(may, p.room()) && !strings.HasPrefix(p.room(), "test/") {
					t.Errorf("%s must not import %s: it is for %s", p.room(), path, strings.Join(may, ", "))
				}
			}
		}
	}
}

// What is far apart stays so over any number of steps.
func TestNothingComesAlongUnseen(t *testing.T) {
	t.Parallel()
	never := map[string][]string{
		"cmd/skyport-worker":     {"internal/core/...", "gate/...", "client", "internal/pki", "internal/spool", "jobscript"},
		"gate":                   {"internal/core/...", "client", "gate/local", "internal/worker/..."},
		"internal/core":          {"gate/azure", "gate/openstack", "gate/aws"},
		"client":                 {"internal/core/...", "gate/...", "internal/worker/..."},
		"internal/core/schedule": {"internal/core/store", "internal/core/lifecycle", "gate", "client"},
	}
	seen := 0
	for _, p := range packages(t) {
		if never[p.room()] == nil {
			continue
		}
		seen++
		for _, path := range p.Deps {
			if ours(path) && matchAny(never[p.room()], within(path)) {
				t.Errorf("%s must not know %s, over whatever package", p.room(), within(path))
			}
		}
	}
	if seen != len(never) {
		t.Errorf("found %d of %d rooms", seen, len(never))
	}
}

// The scheduler is a function: no clock of the machine, no files, no network.
func TestSchedulerIsPure(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.room() != "internal/core/schedule" && p.room() != "." && p.room() != "jobscript" {
			continue
		}
		for _, path := range p.Imports {
			if matchAny([]string{"os/...", "net", "net/http", "syscall", "io/ioutil", "log/...", "math/rand/...", "sync/..."}, path) {
				t.Errorf("%s is pure, and must not import %s", p.room(), path)
			}
		}
	}
}

func TestCommandsSpeakToCoreThroughTheClient(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.room() != "cmd/skyport" {
			continue
		}
		for _, name := range p.GoFiles {
			if slices.Contains(daemons, name) {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range file.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if ours(path) && matchAny([]string{"internal/core/...", "gate/..."}, within(path)) {
					t.Errorf("%s must not import %s: commands speak to core through package client", name, within(path))
				}
			}
		}
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if len(p.Doc) < 40 {
			t.Errorf("%s has no comment that says what it is for", p.room())
		}
		if len(p.GoFiles) > 1 && !slices.Contains(p.GoFiles, "doc.go") {
			t.Errorf("%s has several files and no doc.go", p.room())
		}
	}
}

// vague are names that tell the shape of a thing and not the thing.
var vague = regexp.MustCompile(`(^|[_.-])(utils?|helpers?|common|managers?|misc|base|types|impl|shared)([_.-]|$)`)

func TestNamesTellTheThing(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if e.IsDir() && (name == ".git" || name == "testdata" || name == "node_modules" || name == "dist" || name == "bin") {
			return filepath.SkipDir
		}
		if (e.IsDir() || strings.HasSuffix(name, ".go")) && vague.MatchString(name) {
			t.Errorf("%s is named after its shape: name the thing", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The tables themselves are tried, so that they can fail.
func TestPatterns(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		".": ".", "gate": "gate", "gate/local": "gate/local/...", "gate/local/x": "gate/local/...", "internal/core": "internal/core",
		"internal/core/store/storetest": "internal/core/store/...", "internal/new": "", "internal/worker": "internal/worker/...",
	} {
		if got := longest(path); got != want {
			t.Errorf("%s is held by %q, want %q", path, got, want)
		}
	}
	for name, want := range map[string]bool{"utils.go": true, "job_helpers_test.go": true, "common": true, "commonly.go": false, "pathutil.go": false} {
		if vague.MatchString(name) != want {
			t.Errorf("%s: vague is %v", name, !want)
		}
	}
}
