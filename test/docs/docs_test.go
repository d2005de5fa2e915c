package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/openworkload/skyport/internal/spool"
)

const root = "../.."

// page is a Markdown file with what it says.
type page struct {
	path string // from the root
	text string
}

// pages are all Markdown files of the project.
func pages(t *testing.T) []page {
	t.Helper()
	var list []page
	walk(t, func(path string) {
		if filepath.Ext(path) != ".md" {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, page{path, string(text)})
	})
	if len(list) < 10 {
		t.Fatalf("found %d pages only: is %s the root of the project?", len(list), root)
	}
	return list
}

// walk visits the files of the project by their paths from the root.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir() && (strings.HasPrefix(e.Name(), ".") && name != "." || name == "bin" || name == "dist" || e.Name() == "testdata"):
			return fs.SkipDir
		case !e.IsDir():
			visit(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```")
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, p := range pages(t) {
		for _, found := range link.FindAllStringSubmatch(fence.ReplaceAllString(p.text, ""), -1) {
			target, err := url.Parse(found[1])
			if err != nil {
				t.Errorf("%s: %s is no link: %v", p.path, found[1], err)
				continue
			}
			if target.Scheme != "" {
				continue // the world outside is not ours to check
			}
			checked++
			file := p.path
			if target.Path != "" {
				file = filepath.Join(filepath.Dir(p.path), target.Path)
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: %s leads to nothing", p.path, found[1])
				continue
			}
			if target.Fragment != "" && !slices.Contains(anchors(t, file), target.Fragment) {
				t.Errorf("%s: %s leads to no heading of %s", p.path, found[1], file)
			}
		}
	}
	if checked < 50 {
		t.Errorf("found %d links only: the test does not see them", checked)
	}
}

// anchors are the names by which the headings of a page can be linked.
func anchors(t *testing.T, path string) (names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range heading.FindAllStringSubmatch(fence.ReplaceAllString(string(text), ""), -1) {
		slug := notSlug.ReplaceAllString(strings.ToLower(found[1]), "")
		names = append(names, strings.ReplaceAll(slug, " ", "-"))
	}
	return names
}

var (
	// codeOf finds what is typed: blocks for a shell, and code within a line.
	codeOf  = regexp.MustCompile("(?ms)^```(?:sh|ini)\n(.*?)^```|`(skyport [^`\n]+)`")
	typed   = regexp.MustCompile(`(?m)(?:^|[\s(/=])skyport((?: +[^\s|&;<>()#]+)*)`)
	word    = regexp.MustCompile(`^[a-z]+$`)
	flag    = regexp.MustCompile(`^--?([a-zA-Z][a-z-]*)`)
	listed  = regexp.MustCompile("(?m)^\\| `([^`]+)`")
	section = regexp.MustCompile(`(?m)^## (.+)$`)
)

// TestCommandsExist holds all command lines to docs/cli.md, which another test
// holds to the commands themselves.
func TestCommandsExist(t *testing.T) {
	t.Parallel()
	commands := commands(t)
	checked := 0
	for _, p := range pages(t) {
		if p.path == "docs/cli.md" {
			continue
		}
		for _, code := range codeOf.FindAllStringSubmatch(p.text, -1) {
			for _, line := range typed.FindAllStringSubmatch(code[1]+code[2], -1) {
				checked++
				check(t, commands, p.path, strings.Fields(line[1]))
			}
		}
	}
	if checked < 100 {
		t.Errorf("found %d command lines only: the test does not see them", checked)
	}
}

// check looks for the command and its flags.
func check(t *testing.T, commands map[string][]string, path string, words []string) {
	t.Helper()
	name := ""
	for _, w := range words {
		if longer := strings.TrimSpace(name + " " + w); word.MatchString(w) && commands[longer] != nil {
			name = longer
			continue
		}
		break
	}
	line := "skyport " + strings.Join(words, " ")
	if name == "" && len(words) > 0 && word.MatchString(words[0]) {
		t.Errorf("%s: %s: there is no such command", path, line)
		return
	}
	for _, w := range words {
		if w == "--" {
			return // the rest is another program's
		}
		if f := flag.FindStringSubmatch(w); f != nil && f[1] != "help" && !slices.Contains(commands[name], f[1]) {
			t.Errorf("%s: %s: skyport %s has no flag %s", path, line, name, w)
		}
	}
}

// commands are all commands with their flags; "" has those of all.
func commands(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs/cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	at := section.FindAllSubmatchIndex(text, -1)
	for i, s := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		name, isCommand := strings.CutPrefix(string(text[s[2]:s[3]]), "skyport ")
		if !isCommand && name != "Flags of every command" {
			continue
		}
		if !isCommand {
			name = ""
		}
		flags := slices.Clone(found[""])
		body := string(text[s[1]:end])
		for _, row := range listed.FindAllStringSubmatch(body, -1) {
			for w := range strings.FieldsSeq(row[1]) {
				if f := flag.FindStringSubmatch(w); f != nil {
					flags = append(flags, f[1])
				}
			}
		}
		found[name] = append([]string{"help"}, flags...)
		if _, also, ok := strings.Cut(body, "Also: `"); ok && isCommand {
			also, _, _ = strings.Cut(also, "`")
			found[also] = found[name]
		}
	}
	if len(found) < 20 {
		t.Fatalf("found %d commands only in docs/cli.md", len(found))
	}
	return found
}

var metric = regexp.MustCompile(`^skyport_[a-z_]+$`)

// TestMetricsAreDescribed compares the names in the code with the tables of
// docs/metrics.md.
func TestMetricsAreDescribed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for _, row := range listed.FindAllStringSubmatch(string(text), -1) {
		if metric.MatchString(row[1]) {
			described[row[1]] = true
		}
	}
	made := map[string]string{} // by name: the file
	walk(t, func(path string) {
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				if name, err := strconv.Unquote(literal.Value); err == nil && metric.MatchString(name) {
					made[name] = path
				}
			}
			return true
		})
	})
	for _, name := range slices.Sorted(maps.Keys(made)) {
		if !described[name] {
			t.Errorf("docs/metrics.md does not describe %s of %s", name, made[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(described)) {
		if made[name] == "" {
			t.Errorf("docs/metrics.md describes %s, which nothing makes", name)
		}
	}
	if len(made) < 10 {
		t.Errorf("found %d metrics only: the test does not see them", len(made))
	}
}

// TestSettingsAreDescribed compares the keys of skyport.yaml and their
// variables with the table of docs/operations.md.
func TestSettingsAreDescribed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs/operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	var walk func(at string, shape reflect.Type)
	walk = func(at string, shape reflect.Type) {
		for field := range shape.Fields() {
			key := strings.TrimPrefix(at+"."+field.Tag.Get("koanf"), ".")
			switch field.Type.Kind() {
			case reflect.Struct:
				walk(key, field.Type)
			case reflect.Slice:
				rows = append(rows, "| `"+key+"` | |")
			default:
				variable := "SWM_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
				rows = append(rows, "| `"+key+"` | `"+variable+"` |")
			}
		}
	}
	walk("", reflect.TypeFor[spool.Config]())
	for _, row := range rows {
		if !strings.Contains(string(text), "\n"+row) {
			t.Errorf("docs/operations.md has no row %s", row)
		}
	}
	if len(rows) < 15 {
		t.Errorf("found %d settings only", len(rows))
	}
}

// TestDecisionsAreListed wants every decision in the list of them.
func TestDecisionsAreListed(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile(filepath.Join(root, "docs/decisions/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "docs/decisions/[0-9]*.md"))
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d decisions, error %v", len(files), err)
	}
	for _, file := range files {
		if !strings.Contains(string(list), "("+filepath.Base(file)+")") {
			t.Errorf("docs/decisions/README.md does not list %s", filepath.Base(file))
		}
	}
}
