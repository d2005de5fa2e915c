package spool

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/openworkload/skyport"
)

//go:embed gate.schema.json
var gateSchema []byte

//go:embed gate.example.yaml
var gateExample []byte

// GateSchema is the JSON Schema of gate.yaml, for editors.
func GateSchema() []byte { return bytes.Clone(gateSchema) }

// GateExample is a gate.yaml that explains itself. All of it is a comment.
func GateExample() []byte { return bytes.Clone(gateExample) }

// schemaDocument is the schema as a document, in which messages look for known
// keys and for what the schema itself says of a mistake.
var schemaDocument = func() map[string]any {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(gateSchema))
	if err != nil {
		panic("spool: the schema of gate.yaml is no JSON: " + err.Error())
	}
	return document.(map[string]any)
}()

// secretKeys are the keys whose values the schema says to be secret.
var secretKeys = func() map[string]bool {
	found := map[string]bool{}
	var walk func(any)
	walk = func(value any) {
		object, ok := value.(map[string]any)
		if !ok {
			return
		}
		properties, _ := object["properties"].(map[string]any)
		for name, property := range properties {
			if p, ok := property.(map[string]any); ok && p["writeOnly"] == true {
				found[name] = true
			}
		}
		for _, below := range object {
			walk(below)
		}
	}
	walk(schemaDocument)
	return found
}()

// compiledSchema is the schema, ready to check with.
var compiledSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	formats := map[string]func(string) error{
		"size": checkSize, "network": checkNetwork, "ip": checkIP, "glob": checkGlob, "address": checkAddress, "pause": checkPause, "day": checkDay,
	}
	for name, check := range formats {
		c.RegisterFormat(&jsonschema.Format{Name: name, Validate: func(value any) error {
			if text, ok := value.(string); ok {
				return check(text)
			}
			return nil
		}})
	}
	const name = "gate.schema.json"
	if err := c.AddResource(name, schemaDocument); err != nil {
		return nil, fmt.Errorf("the schema of gate.yaml: %w", err)
	}
	schema, err := c.Compile(name)
	if err != nil {
		return nil, fmt.Errorf("the schema of gate.yaml: %w", err)
	}
	return schema, nil
})

func checkSize(text string) error {
	if size, err := ParseBytes(text); err != nil || size < 1<<30 {
		return fmt.Errorf("want a size of 1GiB or more, such as 64GiB, not %q", skyport.Abbreviate(text, 40))
	}
	return nil
}

func checkNetwork(text string) error {
	_, err := parseNetwork(text)
	return err
}

func checkIP(text string) error {
	if address, err := netip.ParseAddr(text); err != nil || address.Zone() != "" {
		return fmt.Errorf("%q is not an address such as 10.0.0.53", skyport.Abbreviate(text, 60))
	}
	return nil
}

func checkPause(text string) error {
	if d, err := ParseDuration(text); err != nil || d < time.Millisecond || d > time.Hour {
		return fmt.Errorf("%q is not a pause such as 2s", skyport.Abbreviate(text, 40))
	}
	return nil
}

func checkDay(text string) error {
	if _, err := time.Parse(time.DateOnly, text); err != nil {
		return fmt.Errorf("%q is not a day such as 2027-06-30", skyport.Abbreviate(text, 40))
	}
	return nil
}

func checkGlob(text string) error {
	if _, err := path.Match(text, ""); err != nil {
		return fmt.Errorf("%q is not a pattern such as Standard_D*_v5", skyport.Abbreviate(text, 60))
	}
	return nil
}

func checkAddress(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return errors.New("want an address such as https://cloud.example.org:5000")
	}
	return nil
}

// check compares the tree with the schema.
func (t *tree) check() []misfit {
	schema, err := compiledSchema()
	if err != nil {
		return []misfit{t.misfit(nil, "%v", err)}
	}
	err = schema.Validate(t.value)
	wrong, ok := errors.AsType[*jsonschema.ValidationError](err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return []misfit{t.misfit(nil, "%v", err)}
	}
	var found []misfit
	t.explain(wrong, &found)
	// A wrong value of a key that two schemas describe is told once.
	seen := map[string]bool{}
	return slices.DeleteFunc(found, func(m misfit) bool {
		text := m.say("")
		if seen[text] {
			return true
		}
		seen[text] = true
		return false
	})
}

// explain says what the validator found, in words for people.
func (t *tree) explain(e *jsonschema.ValidationError, found *[]misfit) {
	add := func(m misfit) { *found = append(*found, m) }
	path := e.InstanceLocation
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			text := saidBy(e.SchemaURL, "there is no such key"+instead(e.SchemaURL, path, name))
			m := t.misfit(path, "%s", text)
			m.path = below(path, name)
			m.place = t.keys[at(m.path)]
			add(m)
		}
		return
	case *kind.Required:
		add(t.misfit(path, "%s %s missing", strings.Join(k.Missing, " and "), isAre(k.Missing)))
		return
	case *kind.DependentRequired:
		m := t.misfit(below(path, k.Prop), "it needs %s beside it", strings.Join(k.Missing, " and "))
		add(m)
		return
	case *kind.AnyOf:
		deep := slices.ContainsFunc(e.Causes, func(c *jsonschema.ValidationError) bool { return deepest(c) > len(path) })
		if !deep {
			add(t.misfit(path, "%s", saidBy(e.SchemaURL, "this is none of what may stand here")))
			return
		}
		for _, cause := range e.Causes {
			if deepest(cause) > len(path) {
				t.explain(cause, found)
			}
		}
		return
	}
	if len(e.Causes) > 0 {
		for _, cause := range e.Causes {
			t.explain(cause, found)
		}
		return
	}
	add(t.misfit(path, "%s", reasonOf(e)))
}

// deepest is how far below the root an error or its causes are.
func deepest(e *jsonschema.ValidationError) int {
	depth := len(e.InstanceLocation)
	for _, cause := range e.Causes {
		depth = max(depth, deepest(cause))
	}
	return depth
}

func isAre(list []string) string {
	if len(list) == 1 {
		return "is"
	}
	return "are"
}

// reasonOf says what one value should have been. It never cites the value: it
// may be a secret.
func reasonOf(e *jsonschema.ValidationError) string {
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		want := map[string]string{
			"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
			"array": "a list", "object": "keys and values below it",
		}[k.Want[0]]
		if k.Want[0] == "string" && (k.Got == "number" || k.Got == "boolean" || k.Got == "integer") {
			return "want a text: put it between quotes"
		}
		return "want " + want
	case *kind.Enum:
		var words []string
		for _, word := range k.Want {
			words = append(words, fmt.Sprint(word))
		}
		said := ""
		if got, ok := k.Got.(string); ok {
			said = fmt.Sprintf("%q is unknown: ", skyport.Abbreviate(got, 40))
		}
		return said + "want " + strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	case *kind.Const:
		return fmt.Sprintf("want %v", k.Want)
	case *kind.Format:
		return k.Err.Error()
	case *kind.MinLength, *kind.MinItems:
		return saidBy(e.SchemaURL, "it is empty")
	case *kind.MaxLength:
		return fmt.Sprintf("it is longer than %d letters", k.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("there are more than %d", k.Want)
	case *kind.MaxProperties:
		return fmt.Sprintf("there are more than %d", k.Want)
	case *kind.Minimum:
		return "want " + k.Want.RatString() + " or more"
	case *kind.Maximum:
		return "want " + k.Want.RatString() + " or less"
	}
	return saidBy(e.SchemaURL, "this cannot stand here")
}

// saidBy is what the schema at an address has to say of a mistake.
func saidBy(address, otherwise string) string {
	if text, ok := schemaAt(address)["errorMessage"].(string); ok {
		return text
	}
	return otherwise
}

// schemaAt is a part of the schema, by its address.
func schemaAt(address string) map[string]any {
	_, fragment, _ := strings.Cut(address, "#")
	var part any = schemaDocument
	for step := range strings.SplitSeq(strings.TrimPrefix(fragment, "/"), "/") {
		if step == "" {
			continue
		}
		object, ok := part.(map[string]any)
		if !ok {
			return nil
		}
		part = object[step]
	}
	object, _ := part.(map[string]any)
	return object
}

// propertiesOf are the keys that a part of the schema knows.
func propertiesOf(address string) map[string]any {
	properties, _ := schemaAt(address)["properties"].(map[string]any)
	return properties
}

// instead says what was meant by a key that is not known: one that belongs
// elsewhere, or the nearest.
func instead(address string, path []string, name string) string {
	known := propertiesOf(address)
	if strings.HasSuffix(address, "_credentials") {
		if _, ok := propertiesOf(strings.TrimSuffix(address, "_credentials"))[name]; ok {
			return "; it belongs one level up, not below credentials"
		}
	} else if _, ok := propertiesOf(address + "_credentials")[name]; ok {
		return "; it belongs below credentials"
	}
	if len(path) >= 2 {
		for _, other := range []string{"azure", "openstack", "aws"} {
			if _, ok := propertiesOf("#/$defs/" + other)[name]; ok {
				return "; only sites of kind " + other + " have it"
			}
		}
	}
	return suggest(name, known)
}
