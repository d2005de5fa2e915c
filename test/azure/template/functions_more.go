package template

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

func split(name string, args []any) (any, error) {
	text, ok := args[0].(string)
	if !ok {
		return nil, wrongArguments(name, "the first parameter must be of type 'String'")
	}
	seps := make([]string, 0, 1)
	for _, s := range asArray(args[1]) {
		sep, ok := s.(string)
		if !ok || sep == "" {
			return nil, wrongArguments(name, "the delimiter must be a string or an array of strings")
		}
		seps = append(seps, sep)
	}
	parts := []string{text}
	for _, sep := range seps {
		var next []string
		for _, p := range parts {
			next = append(next, strings.Split(p, sep)...)
		}
		parts = next
	}
	out := make([]any, len(parts))
	for i := range parts {
		out[i] = parts[i]
	}
	return out, nil
}

func join(name string, args []any) (any, error) {
	list, ok := args[0].([]any)
	sep, ok2 := args[1].(string)
	if !ok || !ok2 {
		return nil, wrongArguments(name, "it wants an array and a delimiter")
	}
	var out strings.Builder
	for i, v := range list {
		if i > 0 {
			out.WriteString(sep)
		}
		out.WriteString(textOf(v))
		if out.Len() > maxText {
			break
		}
	}
	return out.String(), nil
}

func substring(name string, args []any) (any, error) {
	text, ok := args[0].(string)
	from, ok2 := args[1].(int64)
	runes := []rune(text)
	count := int64(len(runes)) - from
	ok3 := true
	if len(args) == 3 {
		count, ok3 = args[2].(int64)
	}
	if !ok || !ok2 || !ok3 || from < 0 || count < 0 || from > int64(len(runes)) || count > int64(len(runes))-from {
		return nil, wrongArguments(name, "the index and length parameters must refer to a location within the string")
	}
	return string(runes[from : from+count]), nil
}

func padLeft(name string, args []any) (any, error) {
	text, width, with := textOf(args[0]), int64(0), " "
	var ok bool
	if width, ok = args[1].(int64); !ok || width < 0 || width > 10000 {
		return nil, wrongArguments(name, "the total length is not valid")
	}
	if len(args) == 3 {
		if with, ok = args[2].(string); !ok || utf8.RuneCountInString(with) != 1 {
			return nil, wrongArguments(name, "the padding must be one character")
		}
	}
	return strings.Repeat(with, max(0, int(width)-utf8.RuneCountInString(text))) + text, nil
}

func length(name string, args []any) (any, error) {
	switch v := args[0].(type) {
	case string:
		return int64(utf8.RuneCountInString(v)), nil
	case []any:
		return int64(len(v)), nil
	case map[string]any:
		return int64(len(v)), nil
	}
	return nil, wrongArguments(name, "the parameter must be a string, an array or an object")
}

func isEmpty(name string, args []any) (any, error) {
	if args[0] == nil {
		return true, nil
	}
	n, err := length(name, args)
	if err != nil {
		return nil, err
	}
	return n == int64(0), nil
}

func contains(name string, args []any) (any, error) {
	switch in := args[0].(type) {
	case string:
		return strings.Contains(in, textOf(args[1])), nil
	case []any:
		return slices.ContainsFunc(in, func(v any) bool { return equal(v, args[1]) }), nil
	case map[string]any:
		_, ok := lookup(in, textOf(args[1]))
		return ok, nil
	}
	return nil, wrongArguments(name, "the first parameter must be a string, an array or an object")
}

func end(name string, of any, last bool) (any, error) {
	switch of := of.(type) {
	case string:
		runes := []rune(of)
		switch {
		case len(runes) == 0:
			return "", nil
		case last:
			return string(runes[len(runes)-1:]), nil
		}
		return string(runes[:1]), nil
	case []any:
		switch {
		case len(of) == 0:
			return nil, nil
		case last:
			return of[len(of)-1], nil
		}
		return of[0], nil
	}
	return nil, wrongArguments(name, "the parameter must be a string or an array")
}

// cut is skip and take.
func cut(name string, args []any, skip bool) (any, error) {
	n, ok := args[1].(int64)
	if !ok {
		return nil, wrongArguments(name, "the second parameter must be an integer")
	}
	switch of := args[0].(type) {
	case string:
		runes := []rune(of)
		at := min(max(n, 0), int64(len(runes)))
		if skip {
			return string(runes[at:]), nil
		}
		return string(runes[:at]), nil
	case []any:
		at := min(max(n, 0), int64(len(of)))
		if skip {
			return slices.Clone(of[at:]), nil
		}
		return slices.Clone(of[:at]), nil
	}
	return nil, wrongArguments(name, "the first parameter must be a string or an array")
}

func counting(name string, args []any) (any, error) {
	from, ok := args[0].(int64)
	count, ok2 := args[1].(int64)
	if !ok || !ok2 || count < 0 || count > 10000 || from > 1<<31-1-count || from < -1<<31 {
		return nil, wrongArguments(name, "the sum of start index and count must not be more than 2147483647, and the count at most 10000")
	}
	out := make([]any, count)
	for i := range out {
		out[i] = from + int64(i)
	}
	return out, nil
}

func createObject(name string, args []any) (any, error) {
	if len(args)%2 != 0 {
		return nil, wrongArguments(name, "it wants pairs of keys and values")
	}
	out := map[string]any{}
	for i := 0; i < len(args); i += 2 {
		key, ok := args[i].(string)
		if !ok {
			return nil, wrongArguments(name, "a key must be of type 'String'")
		}
		out[key] = args[i+1]
	}
	return out, nil
}

func asArray(v any) []any {
	if list, ok := v.([]any); ok {
		return list
	}
	return []any{v}
}

func intersection(name string, args []any) (any, error) {
	switch first := args[0].(type) {
	case []any:
		count := map[string]int{} // in how many of the others, in a row
		for i, a := range args[1:] {
			list, ok := a.([]any)
			if !ok {
				return nil, wrongArguments(name, "all parameters must be arrays")
			}
			for _, v := range list {
				if k := identity(v); count[k] == i {
					count[k] = i + 1
				}
			}
		}
		var out []any
		for _, v := range first {
			if count[identity(v)] == len(args)-1 {
				out = append(out, v)
			}
		}
		return out, nil
	case map[string]any:
		out := map[string]any{}
		for key, v := range first {
			everywhere := !slices.ContainsFunc(args[1:], func(a any) bool {
				object, ok := a.(map[string]any)
				return !ok || !equal(object[key], v)
			})
			if everywhere {
				out[key] = v
			}
		}
		return out, nil
	}
	return nil, wrongArguments(name, "all parameters must be arrays or objects")
}

func coalesce(_ string, args []any) (any, error) {
	for _, v := range args {
		if v != nil {
			return v, nil
		}
	}
	return nil, nil
}

func compared(is func(int) bool) function {
	return function{2, 2, func(name string, args []any) (any, error) {
		switch a := args[0].(type) {
		case int64:
			if b, ok := args[1].(int64); ok {
				return is(cmp.Compare(a, b)), nil
			}
		case string:
			if b, ok := args[1].(string); ok {
				return is(strings.Compare(a, b)), nil
			}
		}
		return nil, wrongArguments(name, "the parameters must be two integers or two strings")
	}}
}

func logic(name string, args []any, all bool) (any, error) {
	out := all
	for i, a := range args {
		b, ok := a.(bool)
		if !ok {
			return nil, wrongArguments(name, fmt.Sprintf("parameter %d must be of type 'Boolean'", i+1))
		}
		if all {
			out = out && b
		} else {
			out = out || b
		}
	}
	return out, nil
}

func not(name string, args []any) (any, error) {
	b, ok := args[0].(bool)
	if !ok {
		return nil, wrongArguments(name, "the parameter must be of type 'Boolean'")
	}
	return !b, nil
}

func calculated(do func(a, b int64) int64) function {
	return function{2, 2, func(name string, args []any) (any, error) {
		a, ok := args[0].(int64)
		b, ok2 := args[1].(int64)
		if !ok || !ok2 {
			return nil, wrongArguments(name, "the parameters must be integers")
		}
		return do(a, b), nil
	}}
}

func divided(name string, args []any, rest bool) (any, error) {
	a, ok := args[0].(int64)
	b, ok2 := args[1].(int64)
	if !ok || !ok2 || b == 0 {
		return nil, wrongArguments(name, "the parameters must be integers, the second not 0")
	}
	if rest {
		return a % b, nil
	}
	return a / b, nil
}

func extreme(name string, args []any, of func([]int64) int64) (any, error) {
	if len(args) == 1 {
		args = asArray(args[0])
	}
	var all []int64
	for _, a := range args {
		n, ok := a.(int64)
		if !ok {
			return nil, wrongArguments(name, "the parameters must be integers, or an array of them")
		}
		all = append(all, n)
	}
	if len(all) == 0 {
		return nil, wrongArguments(name, "it wants a number")
	}
	return of(all), nil
}
