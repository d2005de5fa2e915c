package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// What an expression may grow to.
const (
	maxText     = 4 << 20
	maxElements = 100_000
)

// unknown stands for what only a running deployment can know: the state of a
// resource. Whatever is made of it is unknown too.
type unknown struct{}

// Host knows what a template may ask for about where it is deployed.
type Host struct {
	Subscription map[string]any // as subscription() tells it
	Group        map[string]any // as resourceGroup() tells it
	Tenant       string
	Deployment   string
	// Reference tells the state of a resource: its properties, or with full all of
	// it. It is asked when the deployment runs, never before.
	Reference func(id, apiVersion string, full bool) (any, error)
}

func (h Host) text(of map[string]any, key string) string {
	s, _ := of[key].(string)
	return s
}

// scope is what the names in an expression mean.
type scope struct {
	host       *Host
	parameters map[string]any
	variables  map[string]any // not evaluated
	known      map[string]any // variables that are
	busy       map[string]bool
	loops      map[string]int64 // by name, "" for the innermost
	planning   bool             // reference() is unknown
	defaults   bool             // newGuid and utcNow are allowed
	references func(id string)  // told of each reference
}

func (s *scope) inLoop(name string, i int64) *scope {
	inner := *s
	inner.loops = maps.Clone(s.loops)
	if inner.loops == nil {
		inner.loops = map[string]int64{}
	}
	inner.loops[""], inner.loops[strings.ToLower(name)] = i, i
	return &inner
}

// value evaluates a JSON value with all expressions in it.
func (s *scope) value(v any) (any, error) {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, "[[") {
			return v[1:], nil
		}
		text, yes := isExpression(v)
		if !yes {
			return v, nil
		}
		n, err := parse(text)
		if err != nil {
			return nil, err
		}
		return s.eval(n)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			var err error
			if out[i], err = s.value(v[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		return s.object(v)
	}
	return v, nil
}

// object evaluates an object; its copy element makes further properties.
// https://learn.microsoft.com/azure/azure-resource-manager/templates/copy-properties
func (s *scope) object(v map[string]any) (any, error) {
	out := make(map[string]any, len(v))
	for _, key := range slices.Sorted(maps.Keys(v)) {
		if key == "copy" {
			if loops, ok := v[key].([]any); ok {
				if err := s.copies(loops, out); err != nil {
					return nil, err
				}
				continue
			}
		}
		name := key
		if text, yes := isExpression(key); yes {
			n, err := parse(text)
			if err != nil {
				return nil, err
			}
			made, err := s.eval(n)
			if err != nil {
				return nil, err
			}
			name, _ = made.(string)
		}
		made, err := s.value(v[key])
		if err != nil {
			return nil, err
		}
		out[name] = made
	}
	return out, nil
}

func (s *scope) copies(loops []any, out map[string]any) error {
	for _, l := range loops {
		loop, ok := l.(map[string]any)
		name, _ := loop["name"].(string)
		if !ok || name == "" {
			return invalid("Deployment template validation failed: 'The copy element needs a name, a count and an input.'")
		}
		count, err := s.count(loop["count"])
		if err != nil {
			return err
		}
		all := make([]any, 0, count)
		for i := range count {
			one, err := s.inLoop(name, i).value(loop["input"])
			if err != nil {
				return err
			}
			all = append(all, one)
		}
		out[name] = all
	}
	return nil
}

// count is how often a loop goes.
func (s *scope) count(v any) (int64, error) {
	made, err := s.value(v)
	if err != nil {
		return 0, err
	}
	n, ok := made.(int64)
	if !ok || n < 0 || n > 800 {
		return 0, invalid("Deployment template validation failed: 'The template copy count is not valid: it must be an integer from 0 to 800. " +
			"Please see https://aka.ms/arm-resource-loops for usage details.'")
	}
	return n, nil
}

func (s *scope) eval(n node) (any, error) {
	switch n := n.(type) {
	case literal:
		return n.value, nil
	case property:
		of, err := s.eval(n.of)
		if err != nil {
			return nil, err
		}
		return member(of, n.name)
	case index:
		of, err := s.eval(n.of)
		if err != nil {
			return nil, err
		}
		at, err := s.eval(n.at)
		if err != nil {
			return nil, err
		}
		return element(of, at)
	case call:
		return s.call(n)
	}
	return nil, errors.New("an expression of no kind")
}

func member(of any, name string) (any, error) {
	switch of := of.(type) {
	case unknown:
		return of, nil
	case map[string]any:
		if v, ok := lookup(of, name); ok {
			return v, nil
		}
		return nil, invalid("The language expression property '%s' doesn't exist, available properties are '%s'.",
			name, strings.Join(slices.Sorted(maps.Keys(of)), ", "))
	}
	return nil, invalid("The language expression property '%s' can't be evaluated: the value is no object.", name)
}

// lookup finds a property by its name in any case.
func lookup(of map[string]any, name string) (any, bool) {
	if v, ok := of[name]; ok {
		return v, true
	}
	for key, v := range of {
		if strings.EqualFold(key, name) {
			return v, true
		}
	}
	return nil, false
}

func element(of, at any) (any, error) {
	switch at := at.(type) {
	case unknown:
		return at, nil
	case string:
		return member(of, at)
	case int64:
		switch of := of.(type) {
		case unknown:
			return of, nil
		case []any:
			if at < 0 || at >= int64(len(of)) {
				return nil, invalid("The language expression property array index '%d' is out of bounds.", at)
			}
			return of[at], nil
		}
	}
	return nil, invalid("The language expression property index is not valid for this value.")
}

// call evaluates a function. Those that need what stands around them are here,
// all others in the table.
func (s *scope) call(c call) (any, error) {
	name := strings.ToLower(c.name)
	if name == "if" && len(c.args) == 3 { // only the branch that is taken is evaluated
		cond, err := s.eval(c.args[0])
		if err != nil {
			return nil, err
		}
		switch cond := cond.(type) {
		case unknown:
			return cond, nil
		case bool:
			if cond {
				return s.eval(c.args[1])
			}
			return s.eval(c.args[2])
		}
		return nil, wrongArguments(c.name, "the first parameter must be of type 'Boolean'")
	}
	args := make([]any, len(c.args))
	dark := false
	for i := range c.args {
		var err error
		if args[i], err = s.eval(c.args[i]); err != nil {
			return nil, err
		}
		_, no := args[i].(unknown)
		dark = dark || no
	}
	if name == "variables" && !dark {
		of, err := oneText(c.name, args)
		if err != nil {
			return nil, err
		}
		return s.variable(of)
	}
	if bound, ok := bounds[name]; ok {
		if dark {
			return unknown{}, nil
		}
		return bound(s, args)
	}
	f, ok := functions[name]
	if !ok {
		return nil, invalid("The template function '%s' is not valid. Please see https://aka.ms/arm-functions for usage details.", c.name)
	}
	if len(args) < f.least || f.most >= 0 && len(args) > f.most {
		return nil, invalid("Unable to evaluate template language function '%s': function requires %s argument(s) while '%d' were provided. "+
			"Please see https://aka.ms/arm-functions for usage details.", c.name, f.wants(), len(args))
	}
	if dark {
		return unknown{}, nil
	}
	out, err := f.do(c.name, args)
	if err != nil {
		return nil, err
	}
	if text, ok := out.(string); ok && len(text) > maxText {
		return nil, invalid("Unable to evaluate template language function '%s': its result is too long.", c.name)
	}
	return out, nil
}

// variable evaluates a variable when it is first asked for.
func (s *scope) variable(name string) (any, error) {
	key := strings.ToLower(name)
	if v, ok := s.known[key]; ok {
		return v, nil
	}
	raw, ok := s.variables[key]
	if !ok {
		return nil, invalid("The template variable '%s' is not found. Please see https://aka.ms/arm-syntax-variables for usage details.", name)
	}
	if s.busy[key] {
		return nil, invalid("Deployment template validation failed: 'The template variable '%s' has a circular reference.'", name)
	}
	s.busy[key] = true
	defer delete(s.busy, key)
	if loop, ok := raw.(variableLoop); ok {
		made := map[string]any{}
		if err := s.copies([]any{loop.loop}, made); err != nil {
			return nil, err
		}
		for _, list := range made {
			s.known[key] = list
		}
		return s.known[key], nil
	}
	v, err := s.value(raw)
	if err != nil {
		return nil, err
	}
	s.known[key] = v
	return v, nil
}

// Decode reads JSON as templates mean it: integers are integers.
func Decode(data []byte) (any, error) {
	in := json.NewDecoder(bytes.NewReader(data))
	in.UseNumber()
	var v any
	if err := in.Decode(&v); err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read JSON: something follows it")
	}
	return numbers(v), nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = numbers(v[key])
		}
	}
	return v
}
