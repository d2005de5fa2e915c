package jobscript

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/openworkload/skyport"
)

// MaxSize is the size in bytes of the largest script that is accepted.
const MaxSize = 16 << 20

// maxLine bounds one directive, in bytes, so that a hostile one costs little.
// Every list that is within its own bound fits, however it is quoted.
const maxLine = 512 << 10

// mark begins a directive: the first word of its line, in just this case.
const mark = "#SWM"

// Options tell Parse what a script alone does not say. The zero value is fine.
type Options struct {
	// File is the name of the script in messages; default "job script".
	File string
	// Overrides win over the directives of the script. Values are written as in
	// a script line, quotes included; see [Quote]. Of several for one keyword
	// the last wins, except that those of a repeatable keyword add up: together
	// they replace the script's list, env by name. An empty value takes the
	// script's directive away; for an on-off directive it means yes.
	Overrides []Directive
}

// Directive is a keyword with its value, as a line of the script says it.
type Directive = skyport.Directive

// Parse reads the directives of a script. Fields that the script does not set
// keep their zero value, but for the defaults Nodes 1 and Relocatable true.
//
// All that is wrong is reported together: the error is an [Errors], each with
// [skyport.CodeInvalidScript] and, when it lies in the script, its line and
// column. A script over [MaxSize] gives [skyport.CodeTooLarge].
func Parse(script []byte, opts Options) (skyport.Request, error) {
	p := parser{
		file:    opts.File,
		request: skyport.Request{Nodes: 1, Relocatable: true},
		said:    make(map[*row]int, 16),
	}
	if p.file == "" {
		p.file = "job script"
	}
	if err := p.unreadable(script); err != nil {
		return skyport.Request{}, Errors{err}
	}
	p.readScript(script)
	p.readOverrides(opts.Overrides)
	if len(p.errs) > 0 {
		return skyport.Request{}, p.errs
	}
	return p.request, nil
}

// parser is one call of Parse.
type parser struct {
	file    string
	request skyport.Request
	errs    Errors
	said    map[*row]int   // lines of the directives that may stand only once
	lists   map[*row]*list // what the others have so far
}

// list is what a repeatable directive has said so far.
type list struct {
	lines map[string]int // line that said a name first; 0 for an override
	size  int            // bytes of all its values
}

// unreadable refuses what is no script at all, before any line is looked at.
func (p *parser) unreadable(script []byte) *skyport.Error {
	if len(script) > MaxSize {
		return skyport.Errorf(skyport.CodeTooLarge, "%s: the script is larger than %s", p.file, skyport.Bytes(MaxSize)).
			WithHint("keep data out of the script: name it in an input-files directive")
	}
	if len(bytes.TrimSpace(script)) == 0 {
		return skyport.Errorf(skyport.CodeInvalidScript, "%s: the script is empty", p.file).
			WithHint("write the commands of the job into it")
	}
	if i := bytes.IndexByte(script, 0); i >= 0 {
		start := bytes.LastIndexByte(script[:i], '\n') + 1
		line := 1 + bytes.Count(script[:i], []byte{'\n'})
		return p.errorAt(line, column(string(script[start:i])), "the file is binary (it has a NUL byte), not a script").
			WithHint("submit a text that starts the program, and name the program in an input-files directive")
	}
	if bytes.HasPrefix(script, []byte("\uFEFF")) {
		return p.errorAt(1, 1, "the script begins with a byte order mark, which hides its first line from the system").
			WithHint("save the file as UTF-8 without a byte order mark")
	}
	return nil
}

// readScript reads the directives in the order in which they stand. It looks
// for the mark, not at every line: most of a script is none of our business.
func (p *parser) readScript(script []byte) {
	rest, line := script, 1 // rest begins with this line
	for len(p.errs) < maxErrors {
		i := bytes.Index(rest, []byte(mark))
		if i < 0 {
			return
		}
		start := bytes.LastIndexByte(rest[:i], '\n') + 1
		line += bytes.Count(rest[:start], []byte{'\n'})
		end := len(rest)
		if n := bytes.IndexByte(rest[i:], '\n'); n >= 0 {
			end = i + n
		}
		// The mark is the first thing of its line and a word of its own;
		// everything else is a part of the script.
		after := i + len(mark)
		if len(bytes.TrimLeft(rest[start:i], " \t")) == 0 &&
			(after == end || strings.IndexByte(" \t\r", rest[after]) >= 0) {
			p.readLine(line, string(rest[start:end]), after-start)
		}
		if end == len(rest) {
			return
		}
		rest, line = rest[end+1:], line+1
	}
}

// readLine reads one directive; what follows the mark begins at offset.
func (p *parser) readLine(number int, text string, offset int) {
	text = strings.TrimRight(text, " \t\r")
	if len(text) > maxLine {
		p.add(p.errorAt(number, 1, "a directive is longer than %s", skyport.Bytes(maxLine)).
			WithHint("keep data out of directives"))
		return
	}
	if i, what := unprintable(text); i >= 0 {
		p.add(p.errorAt(number, column(text[:i]), "a directive must not contain %s", what).
			WithHint("write directives in UTF-8, without control characters"))
		return
	}
	word, at := firstWord(text, offset)
	if word == "" {
		p.add(p.errorAt(number, column(text), "expected a directive after #SWM").
			WithHint("for example: #SWM nodes 2; a remark needs another mark than #SWM"))
		return
	}
	row := byWord[word]
	if row == nil {
		p.add(p.errorAt(number, column(text[:at]), "unknown directive %q", skyport.Abbreviate(word, 60)).
			WithHint("%s", suggest(word, "")))
		return
	}
	_, begin := firstWord(text, at+len(word))
	v := value{p: p, row: row, text: text[begin:], whole: text, at: begin, line: number, word: word}
	if !row.Repeatable {
		if first := p.said[row]; first > 0 {
			p.add(p.errorAt(number, column(text[:at]), "%s is already set on line %d", word, first).
				WithHint("keep one of the two lines"))
			return
		}
		p.said[row] = number
	}
	if v.text == "" && !row.Switch {
		v.fail(0, "", "expected %s", row.argument.expects())
		return
	}
	row.argument.read(v)
}

// readOverrides applies what wins over the script.
func (p *parser) readOverrides(overrides []Directive) {
	replaced := make(map[*row]bool, len(overrides))
	for _, o := range overrides {
		if len(p.errs) >= maxErrors {
			return
		}
		word := strings.TrimSpace(o.Keyword)
		row := byWord[word]
		if row == nil {
			p.add(skyport.Errorf(skyport.CodeInvalidScript, "unknown directive %q", "--"+skyport.Abbreviate(word, 60)).
				WithHint("%s", suggest(word, "--")))
			continue
		}
		v := value{p: p, row: row, text: strings.Trim(o.Value, " \t\r\n"), word: row.Name}
		v.whole = v.text
		if len(v.text) > maxLine {
			v.fail(0, "keep data out of directives", "the value is longer than %s", skyport.Bytes(maxLine))
			continue
		}
		if i, what := unprintable(v.text); i >= 0 {
			v.fail(i, "write it in UTF-8, without control characters", "the value must not contain %s", what)
			continue
		}
		clears := v.text == "" && !row.Switch
		// The list of the script goes when the first override of it comes; env
		// goes name by name.
		if _, merges := row.argument.(environment); clears || row.Repeatable && !merges && !replaced[row] {
			row.argument.clear(&p.request)
			delete(p.lists, row)
		}
		replaced[row] = true
		if !clears {
			row.argument.read(v)
		}
	}
}

// firstWord returns the first word at or after offset, and where it begins.
func firstWord(text string, offset int) (word string, at int) {
	rest := strings.TrimLeft(text[offset:], " \t")
	at = len(text) - len(rest)
	if i := strings.IndexAny(rest, " \t"); i >= 0 {
		rest = rest[:i]
	}
	return rest, at
}

// unprintable finds the first thing in text that no directive may contain:
// control characters could deceive whoever reads them on a terminal.
func unprintable(text string) (offset int, what string) {
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"):
			return i, "bytes that are not UTF-8"
		case r != '\t' && unicode.IsControl(r):
			return i, "control characters"
		}
	}
	return -1, ""
}

// column is the 1-based column that follows before, in characters.
func column(before string) int { return utf8.RuneCountInString(before) + 1 }
