package jobscript

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/openworkload/skyport"
)

const (
	second int64 = 1
	minute       = 60 * second
	hour         = 60 * minute
	day          = 24 * hour
)

// maxDuration keeps typing errors out, and sums of durations far from overflow.
const maxDuration = 3650 * day

// duration is a stretch of time in whole seconds.
type duration struct {
	unit  int64 // of a bare number
	field func(*request) *skyport.Seconds
}

func (a duration) expects() string {
	if a.unit == minute {
		return "a duration such as 90 (minutes), 1:30:00, 2-12 (days-hours) or 1h30m"
	}
	return "a duration such as 300 (seconds), 5m or 1:30:00"
}

func (a duration) read(v value) {
	s, ok := parseDuration(v.text, a.unit)
	switch {
	case !ok:
		v.refuse(0, v.text, "%s", a.expects())
	case s > maxDuration:
		v.refuse(0, v.text, "at most 3650 days")
	default:
		*a.field(&v.p.request) = skyport.Seconds(s)
	}
}

func (a duration) write(r *request) []string {
	s := int64(*a.field(r))
	if s == 0 {
		return nil
	}
	days, hms := "", fmt.Sprintf("%02d:%02d:%02d", s%day/hour, s%hour/minute, s%minute)
	if s >= day {
		days = strconv.FormatInt(s/day, 10) + "-"
	}
	return []string{days + hms}
}

func (a duration) clear(r *request) { *a.field(r) = 0 }

// parseDuration reads N (of the given unit), MM:SS, HH:MM:SS, D-HH, D-HH:MM,
// D-HH:MM:SS, or numbers with units such as 2d12h, 1h30m, 45s. All but the
// first part of a form stay within the next larger unit: 1:90:00 is a mistake.
func parseDuration(s string, unit int64) (seconds int64, ok bool) {
	if n, ok := number(s); ok {
		return n * unit, true
	}
	if strings.ContainsAny(s, "dhms") {
		return parseUnits(s)
	}
	units := []int64{minute, second} // MM:SS
	days, clock, dashed := strings.Cut(s, "-")
	if !dashed {
		clock = s
	}
	parts := strings.Split(clock, ":")
	switch {
	case dashed && len(parts) <= 3 || len(parts) == 3:
		units = []int64{hour, minute, second}
	case len(parts) != 2:
		return 0, false
	}
	if dashed {
		if seconds, ok = number(days); !ok {
			return 0, false
		}
		seconds *= day
	}
	for i, part := range parts {
		n, ok := number(part)
		open := i == 0 && !dashed
		if !ok || !open && (len(part) > 2 || n >= bound(units[i])) {
			return 0, false
		}
		seconds += n * units[i]
	}
	return seconds, true
}

// parseUnits reads numbers with units, each at most once and larger before
// smaller.
func parseUnits(s string) (seconds int64, ok bool) {
	units := "dhms"
	for s != "" {
		end := strings.IndexAny(s, units)
		if end < 0 {
			return 0, false
		}
		n, ok := number(s[:end])
		if !ok {
			return 0, false
		}
		switch s[end] {
		case 'd':
			n *= day
		case 'h':
			n *= hour
		case 'm':
			n *= minute
		}
		units = units[strings.IndexByte(units, s[end])+1:]
		seconds, s = seconds+n, s[end+1:]
	}
	return seconds, true
}

// bound is how many of a unit make the next larger one.
func bound(unit int64) int64 {
	if unit == hour {
		return 24
	}
	return 60
}

// number reads a whole number. Beyond any duration it stays where it is, so
// that products of it cannot overflow.
func number(s string) (n int64, ok bool) {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = min(n*10+int64(s[i]-'0'), maxDuration+1)
	}
	return n, s != ""
}
