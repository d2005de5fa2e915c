package template

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// function is one that depends on its arguments only.
type function struct {
	least, most int // how many arguments; most < 0: any
	do          func(name string, args []any) (any, error)
}

func (f function) wants() string {
	switch {
	case f.most < 0:
		return fmt.Sprintf("at least '%d'", f.least)
	case f.least == f.most:
		return fmt.Sprintf("'%d'", f.least)
	}
	return fmt.Sprintf("'%d' to '%d'", f.least, f.most)
}

func wrongArguments(name, why string) error {
	return invalid("Unable to evaluate template language function '%s': %s. Please see https://aka.ms/arm-functions for usage details.", name, why)
}

// functions by their names in lower case.
var functions = map[string]function{
	"concat":       {0, -1, concat},
	"format":       {1, -1, formatText},
	"string":       {1, 1, func(_ string, a []any) (any, error) { return textOf(a[0]), nil }},
	"int":          {1, 1, toInt},
	"bool":         {1, 1, toBool},
	"tolower":      texts(func(t []string) any { return strings.ToLower(t[0]) }, 1),
	"toupper":      texts(func(t []string) any { return strings.ToUpper(t[0]) }, 1),
	"trim":         texts(func(t []string) any { return strings.TrimSpace(t[0]) }, 1),
	"replace":      texts(replaced, 3),
	"startswith":   texts(func(t []string) any { return strings.HasPrefix(strings.ToLower(t[0]), strings.ToLower(t[1])) }, 2),
	"endswith":     texts(func(t []string) any { return strings.HasSuffix(strings.ToLower(t[0]), strings.ToLower(t[1])) }, 2),
	"indexof":      texts(func(t []string) any { return int64(strings.Index(strings.ToLower(t[0]), strings.ToLower(t[1]))) }, 2),
	"lastindexof":  texts(func(t []string) any { return int64(strings.LastIndex(strings.ToLower(t[0]), strings.ToLower(t[1]))) }, 2),
	"base64":       texts(func(t []string) any { return base64.StdEncoding.EncodeToString([]byte(t[0])) }, 1),
	"uricomponent": texts(func(t []string) any { return strings.ReplaceAll(url.QueryEscape(t[0]), "+", "%20") }, 1),
	// Length and alphabet are Azure's, the letters are not: its hash is not published.
	"uniquestring": texts(func(t []string) any { return unique(t) }, -1),
	"guid":         texts(func(t []string) any { return guid(strings.Join(t, "-")) }, -1),

	"base64tostring": {1, 1, fromBase64},
	"json":           {1, 1, fromJSON},
	"split":          {2, 2, split},
	"join":           {2, 2, join},
	"substring":      {2, 3, substring},
	"padleft":        {2, 3, padLeft},
	"length":         {1, 1, length},
	"empty":          {1, 1, func(name string, a []any) (any, error) { return isEmpty(name, a) }},
	"contains":       {2, 2, contains},
	"first":          {1, 1, func(name string, a []any) (any, error) { return end(name, a[0], false) }},
	"last":           {1, 1, func(name string, a []any) (any, error) { return end(name, a[0], true) }},
	"skip":           {2, 2, func(name string, a []any) (any, error) { return cut(name, a, true) }},
	"take":           {2, 2, func(name string, a []any) (any, error) { return cut(name, a, false) }},
	"range":          {2, 2, counting},
	"createarray":    {0, -1, func(_ string, a []any) (any, error) { return slices.Clone(a), nil }},
	"createobject":   {0, -1, createObject},
	"array":          {1, 1, func(_ string, a []any) (any, error) { return asArray(a[0]), nil }},
	"union":          {1, -1, union},
	"intersection":   {1, -1, intersection},
	"coalesce":       {1, -1, coalesce},
	"equals":         {2, 2, func(_ string, a []any) (any, error) { return equal(a[0], a[1]), nil }},
	"less":           compared(func(c int) bool { return c < 0 }),
	"lessorequals":   compared(func(c int) bool { return c <= 0 }),
	"greater":        compared(func(c int) bool { return c > 0 }),

	"greaterorequals": compared(func(c int) bool { return c >= 0 }),
	"and":             {2, -1, func(name string, a []any) (any, error) { return logic(name, a, true) }},
	"or":              {2, -1, func(name string, a []any) (any, error) { return logic(name, a, false) }},
	"not":             {1, 1, not},
	"true":            {0, 0, func(string, []any) (any, error) { return true, nil }},
	"false":           {0, 0, func(string, []any) (any, error) { return false, nil }},
	"null":            {0, 0, func(string, []any) (any, error) { return nil, nil }},
	"add":             calculated(func(a, b int64) int64 { return a + b }),
	"sub":             calculated(func(a, b int64) int64 { return a - b }),
	"mul":             calculated(func(a, b int64) int64 { return a * b }),
	"div":             {2, 2, func(name string, a []any) (any, error) { return divided(name, a, false) }},
	"mod":             {2, 2, func(name string, a []any) (any, error) { return divided(name, a, true) }},
	"min":             {1, -1, func(name string, a []any) (any, error) { return extreme(name, a, slices.Min[[]int64]) }},
	"max":             {1, -1, func(name string, a []any) (any, error) { return extreme(name, a, slices.Max[[]int64]) }},
}

// texts is a function of strings; many < 0: of one or more.
func texts(do func([]string) any, many int) function {
	f := function{least: many, most: many}
	if many < 0 {
		f.least = 1
	}
	f.do = func(name string, args []any) (any, error) {
		all := make([]string, len(args))
		for i := range args {
			text, ok := args[i].(string)
			if !ok {
				return nil, wrongArguments(name, fmt.Sprintf("parameter %d must be of type 'String'", i+1))
			}
			all[i] = text
		}
		return do(all), nil
	}
	return f
}

func replaced(t []string) any {
	if t[1] == "" || len(t[2]) > 0 && strings.Count(t[0], t[1])*len(t[2]) > maxText {
		return t[0]
	}
	return strings.ReplaceAll(t[0], t[1], t[2])
}

func unique(parts []string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "-")))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:13]
}

func guid(text string) string {
	sum := sha256.Sum256([]byte(text))
	sum[6], sum[8] = sum[6]&0x0f|0x50, sum[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// concat joins strings, or arrays.
func concat(name string, args []any) (any, error) {
	if len(args) > 0 {
		if _, ok := args[0].([]any); ok {
			var all []any
			for _, a := range args {
				part, ok := a.([]any)
				if !ok {
					return nil, wrongArguments(name, "all parameters must be arrays when the first is one")
				}
				if all = append(all, part...); len(all) > maxElements {
					return nil, wrongArguments(name, "the array is too long")
				}
			}
			return all, nil
		}
	}
	var out strings.Builder
	for _, a := range args {
		switch a.(type) {
		case []any, map[string]any:
			return nil, wrongArguments(name, "the parameters must be strings or arrays")
		}
		out.WriteString(textOf(a))
		if out.Len() > maxText {
			break
		}
	}
	return out.String(), nil
}

// textOf is a value as string() spells it.
func textOf(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int64:
		return strconv.FormatInt(v, 10)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

// formatText is composite formatting, as far as {0}, {0:D3}, {0:N0} and {0:X} go.
func formatText(name string, args []any) (any, error) {
	pattern, ok := args[0].(string)
	if !ok {
		return nil, wrongArguments(name, "the first parameter must be of type 'String'")
	}
	var out strings.Builder
	for i := 0; i < len(pattern) && out.Len() <= maxText; i++ {
		switch c := pattern[i]; {
		case (c == '{' || c == '}') && i+1 < len(pattern) && pattern[i+1] == c:
			out.WriteByte(c)
			i++
		case c == '{':
			width := strings.IndexByte(pattern[i:], '}')
			if width < 0 {
				return nil, wrongArguments(name, "the format is not valid")
			}
			text, err := hole(name, pattern[i+1:i+width], args[1:])
			if err != nil {
				return nil, err
			}
			out.WriteString(text)
			i += width
		case c == '}':
			return nil, wrongArguments(name, "the format is not valid")
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), nil
}

func hole(name, inner string, args []any) (string, error) {
	number, how, _ := strings.Cut(inner, ":")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < 0 || n >= len(args) {
		return "", wrongArguments(name, fmt.Sprintf("the format item '{%s}' has no argument", shorten(inner)))
	}
	value, isInt := args[n].(int64)
	if how == "" || !isInt {
		return textOf(args[n]), nil
	}
	digits := 0
	if len(how) > 1 {
		if digits, err = strconv.Atoi(how[1:]); err != nil || digits < 0 || digits > 99 {
			return "", wrongArguments(name, "the format is not valid")
		}
	}
	switch how[0] {
	case 'D', 'd', '0':
		if how[0] == '0' {
			digits = len(how)
		}
		return fmt.Sprintf("%0*d", digits, value), nil
	case 'X':
		return fmt.Sprintf("%0*X", digits, value), nil
	case 'x':
		return fmt.Sprintf("%0*x", digits, value), nil
	}
	return textOf(args[n]), nil
}

func toInt(name string, args []any) (any, error) {
	switch v := args[0].(type) {
	case int64:
		return v, nil
	case float64:
		return int64(v), nil
	case string:
		if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
			return n, nil
		}
	}
	return nil, wrongArguments(name, "the parameter can't be converted to an integer")
}

func toBool(name string, args []any) (any, error) {
	switch v := args[0].(type) {
	case bool:
		return v, nil
	case int64:
		return v != 0, nil
	case string:
		if b, err := strconv.ParseBool(strings.ToLower(v)); err == nil {
			return b, nil
		}
	}
	return nil, wrongArguments(name, "the parameter can't be converted to a boolean")
}

func fromBase64(name string, args []any) (any, error) {
	text, ok := args[0].(string)
	data, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil {
		return nil, wrongArguments(name, "the parameter is no base64")
	}
	return string(data), nil
}

func fromJSON(name string, args []any) (any, error) {
	text, ok := args[0].(string)
	if !ok {
		return nil, wrongArguments(name, "the parameter must be of type 'String'")
	}
	v, err := Decode([]byte(text))
	if err != nil {
		return nil, wrongArguments(name, "the parameter is no valid JSON")
	}
	return v, nil
}

func equal(a, b any) bool { return reflect.DeepEqual(a, b) }

func union(name string, args []any) (any, error) {
	if _, ok := args[0].(map[string]any); ok {
		out := map[string]any{}
		for _, a := range args {
			object, ok := a.(map[string]any)
			if !ok {
				return nil, wrongArguments(name, "all parameters must be of one type")
			}
			merge(out, object)
		}
		return out, nil
	}
	var out []any
	seen := map[string]bool{}
	for _, a := range args {
		list, ok := a.([]any)
		if !ok {
			return nil, wrongArguments(name, "all parameters must be arrays or objects")
		}
		for _, v := range list {
			if k := identity(v); !seen[k] {
				seen[k] = true
				out = append(out, v)
			}
		}
	}
	return out, nil
}

// identity is a text that equal values have alike.
func identity(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

// merge joins objects, those within them too; the later wins.
func merge(into, from map[string]any) {
	for key, v := range from {
		inner, ok := v.(map[string]any)
		old, was := into[key].(map[string]any)
		if ok && was {
			old = maps.Clone(old)
			merge(old, inner)
			into[key] = old
			continue
		}
		into[key] = v
	}
}
