package template

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func secure(kind string) bool {
	return strings.EqualFold(kind, "securestring") || strings.EqualFold(kind, "secureobject")
}

// spelled is a type as deployments tell it.
func spelled(kind string) string {
	for _, k := range []string{"String", "SecureString", "Int", "Bool", "Object", "SecureObject", "Array"} {
		if strings.EqualFold(k, kind) {
			return k
		}
	}
	return kind
}

// fits says whether a value is of a type, and what it is.
func fits(kind string, v any) (yes bool, is string) {
	switch v.(type) {
	case string:
		return strings.EqualFold(kind, "string") || strings.EqualFold(kind, "securestring"), "String"
	case int64:
		return strings.EqualFold(kind, "int"), "Integer"
	case float64:
		return false, "Float"
	case bool:
		return strings.EqualFold(kind, "bool"), "Boolean"
	case map[string]any:
		return strings.EqualFold(kind, "object") || strings.EqualFold(kind, "secureobject"), "Object"
	case []any:
		return strings.EqualFold(kind, "array"), "Array"
	}
	return false, "Null"
}

var expected = map[string]string{
	"string": "String, Uri", "securestring": "String, Uri", "int": "Integer", "bool": "Boolean", "object": "Object", "secureobject": "Object", "array": "Array",
}

// takeParameters checks what is given against what is declared.
// https://learn.microsoft.com/azure/azure-resource-manager/templates/parameters
func (d *Deployment) takeParameters(declared, given map[string]any) error {
	if len(declared) > maxParameters {
		return invalid("Deployment template validation failed: 'The number of template parameters limit exceeded. Limit: '%d'.'", maxParameters)
	}
	for name := range given {
		if _, ok := lookup(declared, name); !ok {
			return invalid("Deployment template validation failed: 'The template parameters '%s' in the parameters file are not valid; they are not present in the original "+
				"template and can therefore not be provided at deployment time. The only supported parameters for this template are '%s'. "+
				"Please see https://aka.ms/arm-pass-parameter-values for usage details.'", name, strings.Join(slices.Sorted(maps.Keys(declared)), ", "))
		}
	}
	d.Parameters = map[string]any{}
	defaults := *d.scope
	defaults.defaults = true
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		p, _ := declared[name].(map[string]any)
		kind, _ := p["type"].(string)
		if expected[strings.ToLower(kind)] == "" {
			return invalid("Deployment template validation failed: 'The template parameter '%s' has no valid type.'", name)
		}
		v, err := d.parameter(name, kind, p, given, &defaults)
		if err != nil {
			return err
		}
		d.scope.parameters[strings.ToLower(name)] = v
		if secure(kind) {
			d.Parameters[name] = map[string]any{"type": spelled(kind)}
		} else {
			d.Parameters[name] = map[string]any{"type": spelled(kind), "value": v}
		}
	}
	return nil
}

func (d *Deployment) parameter(name, kind string, p, given map[string]any, defaults *scope) (any, error) {
	var v any
	if g, ok := lookup(given, name); ok {
		holder, _ := g.(map[string]any)
		if _, ok := holder["reference"]; ok {
			return nil, invalid("Deployment template validation failed: 'The parameter '%s' refers to a key vault, which the emulator does not have.'", name)
		}
		if v, ok = holder["value"]; !ok {
			return nil, invalid("Deployment template validation failed: 'The value for the template parameter '%s' is not provided. "+
				"Please see https://aka.ms/arm-create-parameter-file for usage details.'", name)
		}
	} else {
		raw, ok := p["defaultValue"]
		if !ok {
			return nil, invalid("Deployment template validation failed: 'The value for the template parameter '%s' at line '1' and column '1' is not provided. "+
				"Please see https://aka.ms/arm-create-parameter-file for usage details.'", name)
		}
		var err error
		if v, err = defaults.value(raw); err != nil {
			return nil, err
		}
	}
	if ok, is := fits(kind, v); !ok {
		return nil, invalid("Deployment template validation failed: 'Template parameter JToken type is not valid. Expected '%s'. Actual '%s'. "+
			"Please see https://aka.ms/arm-create-parameter-file for usage details.'", expected[strings.ToLower(kind)], is)
	}
	if allowed, ok := p["allowedValues"].([]any); ok && !slices.ContainsFunc(allowed, func(a any) bool { return equal(a, v) }) {
		shown := textOf(v)
		if secure(kind) {
			shown = "*"
		}
		return nil, invalid("Deployment template validation failed: 'The provided value for the template parameter '%s' is not valid. "+
			"The value '%s' is not part of the allowed value(s): '%s'.'", name, shown, textOf(allowed))
	}
	return v, withinBounds(name, p, v)
}

func withinBounds(name string, p map[string]any, v any) error {
	var size int64
	var least, most string
	switch v := v.(type) {
	case int64:
		size, least, most = v, "minValue", "maxValue"
	case string:
		size, least, most = int64(len([]rune(v))), "minLength", "maxLength"
	case []any:
		size, least, most = int64(len(v)), "minLength", "maxLength"
	default:
		return nil
	}
	lo, hasLo := p[least].(int64)
	hi, hasHi := p[most].(int64)
	if hasLo && size < lo || hasHi && size > hi {
		what := "length"
		if least == "minValue" {
			what = "value"
		}
		return invalid("Deployment template validation failed: 'The provided value for the template parameter '%s' is not valid. %s'", name,
			fmt.Sprintf("Its %s '%d' is not within the bounds.", what, size))
	}
	return nil
}
