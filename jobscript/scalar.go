package jobscript

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/openworkload/skyport"
)

// text is the rest of the line as it stands: names may contain blanks.
type text struct {
	what  string
	max   int // bytes
	field func(*request) *string
}

func (a text) expects() string { return a.what }

func (a text) read(v value) {
	if len(v.text) > a.max {
		v.refuse(0, v.text, "%s of at most %d bytes", a.what, a.max)
		return
	}
	*a.field(&v.p.request) = v.text
}

func (a text) write(r *request) []string { return unlessEmpty(*a.field(r)) }
func (a text) clear(r *request)          { *a.field(r) = "" }

// count is a whole number.
type count struct {
	min, max, usual int
	field           func(*request) *int
}

func (a count) expects() string {
	return "a whole number from " + strconv.Itoa(a.min) + " to " + strconv.Itoa(a.max)
}

func (a count) read(v value) {
	digits := v.text
	if a.min < 0 {
		digits = strings.TrimPrefix(digits, "-")
	}
	n, err := strconv.Atoi(v.text)
	if err != nil || !isDigits(digits) || n < a.min || n > a.max {
		v.refuse(0, v.text, "%s", a.expects())
		return
	}
	*a.field(&v.p.request) = n
}

func (a count) write(r *request) []string {
	n := *a.field(r)
	if a.usual != 0 {
		n = max(n, a.min) // always said: see Format
	} else if n == 0 {
		return nil
	}
	return []string{strconv.Itoa(n)}
}

func (a count) clear(r *request) { *a.field(r) = a.usual }

// price is money per hour.
type price struct{ field func(*request) *float64 }

func (a price) expects() string {
	return "a price per hour above 0 and up to 1000000, such as 2.50"
}

func (a price) read(v value) {
	whole, cents, dotted := strings.Cut(v.text, ".")
	f, err := strconv.ParseFloat(v.text, 64)
	if err != nil || !isDigits(whole) || dotted && !isDigits(cents) || len(v.text) > 20 || f <= 0 || f > 1e6 {
		v.refuse(0, v.text, "%s", a.expects())
		return
	}
	*a.field(&v.p.request) = f
}

func (a price) write(r *request) []string {
	f := *a.field(r)
	if f == 0 {
		return nil
	}
	return []string{strconv.FormatFloat(f, 'f', -1, 64)}
}

func (a price) clear(r *request) { *a.field(r) = 0 }

// onOff is yes or no; nothing means yes.
type onOff struct {
	usual bool
	field func(*request) *bool
}

func (a onOff) expects() string { return "yes or no" }

func (a onOff) read(v value) {
	on := a.field(&v.p.request)
	switch strings.ToLower(v.text) {
	case "", "yes", "true", "on":
		*on = true
	case "no", "false", "off":
		*on = false
	default:
		v.refuse(0, v.text, "yes or no (or true, false, on, off, or nothing for yes)")
	}
}

func (a onOff) write(r *request) []string {
	switch on := *a.field(r); {
	case on == a.usual:
		return nil
	case on:
		return []string{""}
	}
	return []string{"no"}
}

func (a onOff) clear(r *request) { *a.field(r) = a.usual }

// spot is yes, no or prefer; nothing means yes.
type spot struct{}

func (spot) expects() string { return "yes, no or prefer" }

func (a spot) read(v value) {
	switch word := skyport.Spot(strings.ToLower(v.text)); word {
	case "", skyport.SpotYes:
		v.p.request.Spot = skyport.SpotYes
	case skyport.SpotPrefer:
		v.p.request.Spot = word
	case skyport.SpotNo:
		a.clear(&v.p.request)
	default:
		v.refuse(0, v.text, "%s (nothing for yes)", a.expects())
	}
}

func (spot) write(r *request) []string {
	switch r.Spot {
	case skyport.SpotYes, skyport.SpotPrefer:
		return []string{string(r.Spot)}
	}
	return nil
}

func (spot) clear(r *request) { r.Spot = "" }

// size is a number of bytes, in binary units.
type size struct{ field func(*request) *skyport.Bytes }

// maxSize is far above any node, and below what many count as bytes: whoever
// means bytes by a bare number learns that it is MiB.
const maxSize = 64 << 40

func (a size) expects() string { return "a size from 1M to 64T, such as 512M, 4G or 1.5GiB" }

func (a size) read(v value) {
	bytes, ok := parseSize(v.text)
	switch {
	case !ok && len(v.text) > 2 && strings.HasSuffix(strings.ToUpper(v.text), "B"):
		v.fail(0, "units are binary: write 4G or 4GiB", "expected %s, not %q", a.expects(), skyport.Abbreviate(v.text, 60))
	case !ok:
		v.refuse(0, v.text, "%s", a.expects())
	case bytes < 1<<20 || bytes > maxSize:
		v.fail(0, "a number without a unit is MiB; B stands for bytes: 4096 is 4G, 4294967296B as well",
			"expected %s, not %q", a.expects(), skyport.Abbreviate(v.text, 60))
	default:
		*a.field(&v.p.request) = skyport.Bytes(bytes)
	}
}

func (a size) write(r *request) []string {
	n := int64(*a.field(r))
	if n == 0 {
		return nil
	}
	for _, unit := range []struct {
		letter string
		bytes  int64
	}{{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}} {
		if n%unit.bytes == 0 {
			return []string{strconv.FormatInt(n/unit.bytes, 10) + unit.letter}
		}
	}
	return []string{strconv.FormatInt(n, 10) + "B"}
}

func (a size) clear(r *request) { *a.field(r) = 0 }

// parseSize reads a decimal number with a unit: nothing for MiB, B for bytes,
// or one of K M G T, alone or with iB, in either case. Parts of a byte are cut
// off. What exceeds an int64 is given as the largest there is.
func parseSize(s string) (bytes int64, ok bool) {
	end := strings.LastIndexAny(s, "0123456789.") + 1
	number, unit := s[:end], strings.ToUpper(strings.TrimLeft(s[end:], " "))
	shift := 20
	switch strings.TrimSuffix(unit, "IB") {
	case "B":
		shift = 0
	case "K":
		shift = 10
	case "M":
		shift = 20
	case "G":
		shift = 30
	case "T":
		shift = 40
	default:
		if unit != "" {
			return 0, false
		}
	}
	whole, fraction, dotted := strings.Cut(number, ".")
	if !isDigits(whole) || dotted && !isDigits(fraction) || len(fraction) > 6 || shift == 0 && dotted {
		return 0, false
	}
	n, err := strconv.ParseUint(whole, 10, 64)
	if err != nil || n > 1<<62>>shift {
		return 1<<63 - 1, true
	}
	bytes = int64(n << shift) //nolint:gosec // no more than 1<<62, as asked above
	if dotted {
		part, scale := int64(0), int64(1)
		for _, digit := range []byte(fraction) {
			part, scale = part*10+int64(digit-'0'), scale*10
		}
		bytes += part << shift / scale
	}
	return bytes, true
}

// host is a name or an address of a machine, without a port.
type host struct{ field func(*request) *string }

func (a host) expects() string { return "a host name or an IP address, without a port" }

func (a host) read(v value) {
	if !isHost(v.text) {
		v.refuse(0, v.text, "%s", a.expects())
		return
	}
	*a.field(&v.p.request) = v.text
}

func (a host) write(r *request) []string { return unlessEmpty(*a.field(r)) }
func (a host) clear(r *request)          { *a.field(r) = "" }

func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !isLetter(c) && !isDigit(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// unlessEmpty is the values to write for a string that is its own value.
func unlessEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// isDigits says whether s is one digit or more, and nothing else.
func isDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}
