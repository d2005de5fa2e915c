package jobscript

import (
	"strings"
)

// image is the reference of a container image. Whether it exists is for the
// engine to say; here it must only be one that no engine takes for an option,
// a path or a URL.
type image struct{ field func(*request) *string }

func (a image) expects() string { return "a container image such as docker.io/library/python:3.13" }

func (a image) read(v value) {
	at, wanted := imageFault(v.text)
	if wanted != "" {
		v.refuse(at, v.text[at:], "%s", wanted)
		return
	}
	*a.field(&v.p.request) = v.text
}

func (a image) write(r *request) []string { return unlessEmpty(*a.field(r)) }
func (a image) clear(r *request)          { *a.field(r) = "" }

// imageFault finds the part of [host[:port]/]name[/name…][:tag][@digest] that
// is wrong: its offset and what it should be; "" when all is well.
func imageFault(ref string) (at int, wanted string) {
	if len(ref) > 512 {
		return 0, "a container image of at most 512 bytes"
	}
	if strings.Contains(ref, "://") {
		return 0, "a container image without a scheme, such as docker.io/library/python:3.13"
	}
	name, digest, pinned := strings.Cut(ref, "@")
	if pinned && !isDigest(digest) {
		return len(name) + 1, "a digest such as sha256: and 64 hexadecimal digits"
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		if !isTag(name[i+1:]) {
			return i + 1, "a tag of up to 128 letters, digits, _ . and -"
		}
		name = name[:i]
	}
	offset := 0
	if first, rest, slash := strings.Cut(name, "/"); slash && (first == "localhost" || strings.ContainsAny(first, ".:")) {
		h, port, ported := strings.Cut(first, ":")
		if !isHost(h) || ported && !isDigits(port) {
			return 0, "the host of a registry, such as registry.example.org:5000"
		}
		offset, name = len(first)+1, rest
	}
	for part := range strings.SplitSeq(name, "/") {
		if !isImageName(part) {
			return offset, "a name of lower-case letters and digits, with . _ or - between them"
		}
		offset += len(part) + 1
	}
	return 0, ""
}

func isImageName(s string) bool {
	for i := range len(s) {
		plain := 'a' <= s[i] && s[i] <= 'z' || isDigit(s[i])
		between := strings.IndexByte("._-", s[i]) >= 0 && i > 0 && i < len(s)-1
		if !plain && !between {
			return false
		}
	}
	return s != ""
}

func isTag(s string) bool {
	for i := range len(s) {
		plain := isLetter(s[i]) || isDigit(s[i]) || s[i] == '_'
		if !plain && (i == 0 || s[i] != '.' && s[i] != '-') {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func isDigest(s string) bool {
	algorithm, sum, _ := strings.Cut(s, ":")
	if !(algorithm == "sha256" && len(sum) == 64 || algorithm == "sha512" && len(sum) == 128) {
		return false
	}
	return strings.Trim(sum, "0123456789abcdef") == ""
}
