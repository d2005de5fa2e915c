package spool

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/openworkload/skyport"
)

// Bounds of a gate.yaml: far above what people write, and far below what a
// text that unfolds itself could become.
const (
	mostNodes   = 20_000
	mostDepth   = 12
	mostMisfits = 20
)

// place is where something stands in a file, from 1.
type place struct{ line, column int }

// misfit is one mistake.
type misfit struct {
	place
	path []string
	text string
	hint string
}

func (m misfit) say(file string) string {
	text := fmt.Sprintf("%s:%d:%d: ", file, m.line, m.column)
	if len(m.path) > 0 {
		text += strings.Join(m.path, ".") + ": "
	}
	return text + m.text
}

func sortMisfits(all []misfit) {
	slices.SortStableFunc(all, func(a, b misfit) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column), cmp.Compare(a.text, b.text))
	})
}

// tree is a YAML text as JSON knows values, with the places of all.
type tree struct {
	value  any
	values map[string]place // by path
	keys   map[string]place // by path
	secret string           // path of a secret that stands in the text
	wrong  []misfit
	nodes  int
	lookup func(string) (string, bool)
}

// readTree reads a text. References to the environment are looked up.
func readTree(path string, content []byte, lookup func(string) (string, bool)) (*tree, error) {
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(content, &document); err != nil {
		return nil, errYAML(path, err)
	}
	t := &tree{value: map[string]any{}, values: map[string]place{}, keys: map[string]place{}, lookup: lookup}
	t.values[""] = place{1, 1}
	if len(document.Content) > 0 {
		if value := t.read(document.Content[0], nil); value != nil {
			t.value = value
		}
	}
	if len(t.wrong) > 0 {
		return nil, errGateFile(path, t.wrong)
	}
	return t, nil
}

// yamlLine is how the parser says where.
var yamlLine = regexp.MustCompile(`^line (\d+): `)

// errYAML tells of a text that is no YAML.
func errYAML(path string, err error) error {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
	m := misfit{place: place{1, 1}}
	if line := yamlLine.FindStringSubmatch(text); line != nil {
		m.line, _ = strconv.Atoi(line[1]) // digits
		text = text[len(line[0]):]
	}
	// The parser cites the text, in which there may be secrets: only its own words are told.
	if cited := strings.IndexAny(text, "`\""); cited >= 0 {
		text = strings.TrimSpace(text[:cited])
	}
	m.text = "this is no YAML: " + text
	return errGateFile(path, []misfit{m})
}

func at(path []string) string { return strings.Join(path, "\x00") }

// below is a path with one step more, not sharing memory with others.
func below(path []string, step string) []string { return append(slices.Clone(path), step) }

func (t *tree) refuse(node *yamlv3.Node, path []string, format string, args ...any) {
	if len(t.wrong) <= mostMisfits {
		t.wrong = append(t.wrong, misfit{place: place{node.Line, node.Column}, path: path, text: fmt.Sprintf(format, args...)})
	}
}

// misfit is a mistake at the value of a path, or at the nearest thing above it.
func (t *tree) misfit(path []string, format string, args ...any) misfit {
	m := misfit{path: path, text: fmt.Sprintf(format, args...)}
	for n := len(path); ; n-- {
		if p, ok := t.values[at(path[:n])]; ok {
			m.place = p
			return m
		}
	}
}

// read turns a node into what JSON would have; nil is what is not there.
func (t *tree) read(node *yamlv3.Node, path []string) any {
	if t.nodes++; t.nodes > mostNodes {
		if t.nodes == mostNodes+1 {
			t.refuse(node, nil, "the file unfolds into more than %d values", mostNodes)
		}
		return nil
	}
	if len(path) > mostDepth {
		t.refuse(node, nil, "there are more than %d levels", mostDepth)
		return nil
	}
	t.values[at(path)] = place{node.Line, node.Column}
	switch node.Kind {
	case yamlv3.AliasNode:
		where := t.values[at(path)]
		value := t.read(node.Alias, path)
		t.values[at(path)] = where
		return value
	case yamlv3.MappingNode:
		return t.readMap(node, path)
	case yamlv3.SequenceNode:
		items := []any{}
		for i, item := range node.Content {
			items = append(items, t.read(item, below(path, strconv.Itoa(i))))
		}
		return items
	case yamlv3.ScalarNode:
		return t.readScalar(node, path)
	}
	t.refuse(node, path, "this cannot stand here")
	return nil
}

func (t *tree) readMap(node *yamlv3.Node, path []string) any {
	values := map[string]any{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, item := node.Content[i], node.Content[i+1]
		if key.Kind != yamlv3.ScalarNode {
			t.refuse(key, path, "a key is a word")
			continue
		}
		if key.Tag == "!!merge" {
			t.refuse(key, path, "merging with << is not known here: write the keys, or name a whole value with &NAME and *NAME")
			continue
		}
		name := below(path, key.Value)
		if _, twice := t.keys[at(name)]; twice && repeated(node, i) {
			t.refuse(key, name, "the key is there twice")
			continue
		}
		t.keys[at(name)] = place{key.Line, key.Column}
		if value := t.read(item, name); value != nil {
			values[key.Value] = value
		}
	}
	return values
}

// repeated says whether a key of a mapping was there before.
func repeated(node *yamlv3.Node, i int) bool {
	for j := 0; j < i; j += 2 {
		if node.Content[j].Value == node.Content[i].Value {
			return true
		}
	}
	return false
}

// variable is a value that stands for a variable of the environment.
var variable = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$`)

func (t *tree) readScalar(node *yamlv3.Node, path []string) any {
	switch tag := node.ShortTag(); tag {
	case "!!null":
		return nil
	case "!!bool", "!!int", "!!float":
		var value any
		if err := node.Decode(&value); err != nil {
			t.refuse(node, path, "this is no value")
			return nil
		}
		if number, ok := value.(float64); ok && (math.IsNaN(number) || math.IsInf(number, 0)) {
			t.refuse(node, path, "want a number")
			return nil
		}
		return value
	case "!!str", "!!timestamp":
		return t.readText(node, path)
	default:
		t.refuse(node, path, "%s is no kind of value that is known here", skyport.Abbreviate(tag, 20))
		return nil
	}
}

func (t *tree) readText(node *yamlv3.Node, path []string) any {
	text := node.Value
	secret := len(path) > 0 && secretKeys[path[len(path)-1]]
	named := variable.FindStringSubmatch(text)
	switch {
	case named != nil:
		value, ok := t.lookup(named[1])
		if !ok || value == "" {
			t.refuse(node, path, "the environment variable %s is not set", named[1])
			return nil
		}
		return value
	case strings.Contains(text, "${"):
		t.refuse(node, path, "a reference such as ${NAME} must be the whole value")
		return nil
	}
	if secret && t.secret == "" {
		t.secret = strings.Join(path, ".")
	}
	return text
}
