package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/openworkload/skyport"
)

// maxConfig bounds what is read of a configuration.
const maxConfig = 1 << 20

// LoadConfig reads the configuration: the defaults, above them the file, if
// there is one, above it the environment. The error lists every mistake with
// its line and, for an unknown key, the nearest known one.
func LoadConfig(path string) (Config, error) {
	content, err := readConfig(path)
	if err != nil {
		return Config{}, err
	}
	return parseConfig(path, content, os.Environ())
}

func readConfig(path string) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer func() { _ = file.Close() }() // read only
	content, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(content) > maxConfig {
		return nil, skyport.Errorf(skyport.CodeTooLarge, "the configuration %s has more than %s", path, skyport.Bytes(maxConfig))
	}
	return content, nil
}

func parseConfig(path string, content []byte, environ []string) (Config, error) {
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(content, &document); err != nil {
		return Config{}, errConfig(path, []string{yamlProblem(path, err)})
	}
	origins := map[string]origin{} // by key
	if unknown := readKeys(path, &document, origins); len(unknown) > 0 {
		return Config{}, errConfig(path, unknown)
	}
	merged := koanf.New(".")
	if err := merged.Load(rawbytes.Provider(content), yaml.Parser()); err != nil {
		return Config{}, errConfig(path, []string{yamlProblem(path, err)})
	}
	variables := env.Provider(".", env.Opt{
		Prefix:      "SWM_",
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key, ok := variableKeys[name]
			if !ok { // SWM_SPOOL, SWM_JOB_ID and others are not settings
				return "", nil
			}
			origins[key] = origin{name: name}
			return key, value
		},
	})
	if err := merged.Load(variables, nil); err != nil {
		return Config{}, fmt.Errorf("read the environment: %w", err)
	}
	config := Defaults()
	// An account of the file must not inherit fields of the default account.
	if merged.Exists("accounts") {
		config.Accounts = nil
	}
	err := merged.UnmarshalWithConf("", &config, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result:           &config,
		TagName:          "koanf",
		WeaklyTypedInput: true, // the environment has strings only
		DecodeHook:       mapstructure.ComposeDecodeHookFunc(decodeSizes, decodeDurations, decodeScalars),
	}})
	if err != nil {
		return Config{}, errConfig(path, explain(path, decodeProblems(err), origins))
	}
	if wrong := config.problems(); len(wrong) > 0 {
		return Config{}, errConfig(path, explain(path, wrong, origins))
	}
	return config, nil
}

// yamlProblem puts an error of the YAML parser into one line.
func yamlProblem(path string, err error) string {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
	return path + ": " + strings.ReplaceAll(text, "\n  ", "; ")
}

// origin is where a setting was made: a line of the file, or a variable.
type origin struct {
	name string
	line int // 0 for a variable
}

func (o origin) String() string {
	if o.line == 0 {
		return o.name
	}
	return fmt.Sprintf("%s:%d", o.name, o.line)
}

// explain puts problems into lines for people, in the order of the file, each
// with where the setting was made.
func explain(path string, problems []problem, origins map[string]origin) (texts []string) {
	from := func(p problem) origin {
		if o, ok := origins[p.key]; ok {
			return o
		}
		return origin{name: path}
	}
	slices.SortStableFunc(problems, func(a, b problem) int { return cmp.Compare(from(a).line, from(b).line) })
	for _, p := range problems {
		text := from(p).String()
		if p.key != "" {
			text += ": " + p.key
		}
		texts = append(texts, text+": "+p.text)
	}
	return texts
}

// readKeys notes the line of every key in the document and returns what is
// wrong with the keys themselves.
func readKeys(path string, document *yamlv3.Node, origins map[string]origin) (wrong []string) {
	var walk func(node *yamlv3.Node, at string, shape reflect.Type)
	walk = func(node *yamlv3.Node, at string, shape reflect.Type) {
		if node.Kind == yamlv3.AliasNode {
			node = node.Alias
		}
		switch {
		case shape.Kind() == reflect.Slice && node.Kind == yamlv3.SequenceNode:
			for i, item := range node.Content {
				key := fmt.Sprintf("%s.%d", at, i)
				origins[key] = origin{path, item.Line}
				walk(item, key, shape.Elem())
			}
		case shape.Kind() == reflect.Struct && node.Kind == yamlv3.MappingNode:
			known := fieldsOf(shape)
			for i := 0; i+1 < len(node.Content); i += 2 {
				name, value := node.Content[i], node.Content[i+1]
				key := strings.TrimPrefix(at+"."+name.Value, ".")
				field, ok := known[name.Value]
				if !ok {
					wrong = append(wrong, fmt.Sprintf("%s: %s: there is no such key%s", origin{path, name.Line}, key, suggest(name.Value, known)))
					continue
				}
				origins[key] = origin{path, name.Line}
				walk(value, key, field)
			}
		case shape.Kind() == reflect.Struct && node.Tag != "!!null":
			wrong = append(wrong, strings.ReplaceAll(
				fmt.Sprintf("%s: %s: want keys and values below it", origin{path, node.Line}, at), ": : ", ": "))
		}
	}
	if len(document.Content) > 0 {
		walk(document.Content[0], "", reflect.TypeFor[Config]())
	}
	return wrong
}

// fieldsOf returns the types of a struct's fields by key.
func fieldsOf(shape reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range shape.NumField() {
		field := shape.Field(i)
		fields[field.Tag.Get("koanf")] = field.Type
	}
	return fields
}

// variableKeys are the settings that the environment can give, by variable.
// Accounts are not among them: a list of accounts does not fit a variable.
var variableKeys = func() map[string]string {
	keys := map[string]string{}
	var walk func(at string, shape reflect.Type)
	walk = func(at string, shape reflect.Type) {
		for name, field := range fieldsOf(shape) {
			key := strings.TrimPrefix(at+"."+name, ".")
			switch field.Kind() {
			case reflect.Struct:
				walk(key, field)
			case reflect.Slice:
			default:
				keys["SWM_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))] = key
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
	return keys
}()

// suggest names the known key that is nearest to the wrong one, when one is
// near, else all of them.
func suggest[V any](wrong string, known map[string]V) string {
	best, distance := "", len(wrong)/2+1
	names := sortedKeys(known)
	for _, name := range names {
		if d := editDistance(wrong, name); d < distance {
			best, distance = name, d
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; known are " + strings.Join(names, ", ")
}

// decodeProblems turns the decoder's errors into ours.
func decodeProblems(err error) (found []problem) {
	var each func(error)
	each = func(err error) {
		switch e := err.(type) { //nolint:errorlint // the tree of errors is walked by hand
		case *mapstructure.DecodeError:
			// The decoder says accounts[0].name where we say accounts.0.name.
			key := strings.NewReplacer("[", ".", "]", "").Replace(e.Name())
			found = append(found, problem{key, reason(e.Unwrap())})
		case interface{ Unwrap() []error }:
			for _, below := range e.Unwrap() {
				each(below)
			}
		case interface{ Unwrap() error }:
			each(e.Unwrap())
		default:
			found = append(found, problem{"", err.Error()})
		}
	}
	each(err)
	return found
}

// reason says what a value should have been in words of the file, not of Go.
func reason(err error) string {
	if wrong, ok := errors.AsType[*wrongValue](err); ok {
		return wrong.Error()
	}
	if unconvertible, ok := errors.AsType[*mapstructure.UnconvertibleTypeError](err); ok {
		return fmt.Sprintf("want %s", kindWord(unconvertible.Expected.Type()))
	}
	if parse, ok := errors.AsType[*mapstructure.ParseError](err); ok {
		return fmt.Sprintf("%q is not %s", fmt.Sprint(parse.Value), kindWord(parse.Expected.Type()))
	}
	return err.Error()
}

func kindWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	case reflect.Struct:
		return "keys and values below it"
	}
	return "a text"
}

// wrongValue is a value that one of the hooks refused.
type wrongValue struct{ text string }

func (e *wrongValue) Error() string { return e.text }

// decodeSizes reads sizes such as 16MiB.
func decodeSizes(_, to reflect.Type, value any) (any, error) {
	if to != reflect.TypeFor[skyport.Bytes]() {
		return value, nil
	}
	size, err := ParseBytes(fmt.Sprint(value))
	if err != nil {
		return nil, &wrongValue{err.Error()}
	}
	return size, nil
}

// decodeDurations reads durations such as 10m or 30d.
func decodeDurations(_, to reflect.Type, value any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() {
		return value, nil
	}
	d, err := ParseDuration(fmt.Sprint(value))
	if err != nil {
		return nil, &wrongValue{err.Error()}
	}
	return d, nil
}

// decodeScalars takes back the leniency of the decoder where it hides mistakes:
// a single value is no list, yes and 1 are no truth values, 1 is no name.
func decodeScalars(from, to reflect.Type, value any) (any, error) {
	text, isText := value.(string)
	switch {
	case to.Kind() == reflect.Bool && isText && text != "true" && text != "false":
		return nil, &wrongValue{fmt.Sprintf("%q is not true or false", text)}
	case to.Kind() == reflect.Bool && !isText && from.Kind() != reflect.Bool,
		to.Kind() == reflect.Slice && from.Kind() != reflect.Slice,
		to.Kind() == reflect.String && (from.Kind() == reflect.Slice || from.Kind() == reflect.Map || from.Kind() == reflect.Bool):
		return nil, &wrongValue{fmt.Sprintf("%v is not %s", value, kindWord(to))}
	case to.Kind() == reflect.Int && from.Kind() == reflect.Float64:
		return nil, &wrongValue{fmt.Sprintf("%v is not a whole number", value)}
	}
	return value, nil
}

// ParseBytes reads a size: a whole number of bytes, or one with a unit, KiB to
// TiB in steps of 1024. K, KB and so on mean the same.
func ParseBytes(text string) (skyport.Bytes, error) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.ToUpper(strings.TrimSpace(text[len(number):]))
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "B"), "I")
	power := strings.Index("KMGT", unit) + 1
	if unit == "" {
		power = 0
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || len(unit) > 1 || unit != "" && power == 0 || n > (1<<62)>>(10*power) {
		return 0, fmt.Errorf("%q is not a size such as 512MiB or 4GiB", skyport.Abbreviate(text, 40))
	}
	return skyport.Bytes(n << (10 * power)), nil
}

// ParseDuration reads a duration as Go spells it, or a whole number of days
// such as 30d.
func ParseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 90s, 10m, 36h or 30d", skyport.Abbreviate(text, 40))
	}
	return d, nil
}
