package api_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
)

// codes reads the catalogue of codes out of its source.
func codes(t testing.TB) []skyport.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../../errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var list []skyport.Code
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Code") {
			return true
		}
		if text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value); err == nil {
			list = append(list, skyport.Code(text))
		}
		return true
	})
	if len(list) < 20 {
		t.Fatalf("only %d codes were found", len(list))
	}
	return list
}

// TestDocumentedCodes keeps the table of docs/api.md in step with the catalogue.
func TestDocumentedCodes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		if _, err := strconv.Atoi(strings.TrimSpace(cells[2])); err == nil {
			documented[strings.Trim(strings.TrimSpace(cells[1]), "`")] = strings.TrimSpace(cells[2])
		}
	}
	for _, code := range codes(t) {
		if got := documented[string(code)]; got != strconv.Itoa(code.Status()) {
			t.Errorf("docs/api.md says status %q of code %s, want %d", got, code, code.Status())
		}
		delete(documented, string(code))
	}
	for code := range documented {
		t.Errorf("docs/api.md has code %s, which is none", code)
	}
}
