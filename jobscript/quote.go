package jobscript

import "strings"

// word is one of several in a value, without its quotes.
type word struct {
	text string
	at   int // offset of its first byte, or of its quote, in the value
}

// words splits the value at blanks, as a shell does: '…' keeps everything,
// "…" keeps everything but \" and \\, and a backslash keeps the character after
// it. Nothing is expanded: $, * and ~ stand for themselves.
func (v value) words() (list []word, ok bool) {
	const blanks = " \t"
	for i := 0; i < len(v.text); {
		if strings.IndexByte(blanks, v.text[i]) >= 0 {
			i++
			continue
		}
		start := i
		// Most words are plain: a slice of the line will do.
		for i < len(v.text) && strings.IndexByte(" \t'\"\\", v.text[i]) < 0 {
			i++
		}
		if i == len(v.text) || strings.IndexByte(blanks, v.text[i]) >= 0 {
			list = append(list, word{v.text[start:i], start})
			continue
		}
		var b strings.Builder
		b.WriteString(v.text[start:i])
		for i < len(v.text) && strings.IndexByte(blanks, v.text[i]) < 0 {
			if i, ok = unquote(&b, v.text, i); !ok {
				if v.text[i] == '\\' {
					v.fail(i, `write \\ for a backslash`, "nothing follows the backslash")
				} else {
					v.fail(i, `end it, or write \`+v.text[i:i+1]+" for the character itself", "a quote is not ended")
				}
				return nil, false
			}
		}
		list = append(list, word{b.String(), start})
	}
	return list, true
}

// unquote writes the character or the quoted stretch at offset i of s, and
// returns the offset after it; or where a quote begins that never ends.
func unquote(b *strings.Builder, s string, i int) (next int, ok bool) {
	switch quote := s[i]; quote {
	case '\\':
		if i+1 == len(s) {
			return i, false
		}
		b.WriteByte(s[i+1])
		return i + 2, true
	case '\'', '"':
		for j := i + 1; j < len(s); j++ {
			switch {
			case s[j] == quote:
				return j + 1, true
			case quote == '"' && s[j] == '\\' && j+1 < len(s) && strings.IndexByte(`"\`, s[j+1]) >= 0:
				j++
			}
			b.WriteByte(s[j])
		}
		return i, false
	}
	b.WriteByte(s[i])
	return i + 1, true
}

// Quote writes a path so that a directive takes it as one word: as it is when
// it has nothing special, else in single quotes.
func Quote(path string) string {
	if path != "" && !strings.ContainsAny(path, " \t'\"\\") {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// quoted is one line with all the paths, or none.
func quoted(paths ...string) []string {
	var words []string
	for _, p := range paths {
		if p != "" {
			words = append(words, Quote(p))
		}
	}
	if words == nil {
		return nil
	}
	return []string{strings.Join(words, " ")}
}
