package cost

import (
	"math"
	"math/big"
	"time"
)

// Micros is an amount of money in millionths of its currency's unit.
type Micros int64

// MicrosOf rounds an amount; what cannot be an amount is 0.
func MicrosOf(amount float64) Micros {
	scaled := math.Round(amount * 1e6)
	switch {
	case math.IsNaN(scaled):
		return 0
	case scaled >= math.MaxInt64:
		return math.MaxInt64
	case scaled <= math.MinInt64:
		return math.MinInt64
	}
	return Micros(scaled)
}

// Float is the amount as people write it.
func (m Micros) Float() float64 { return float64(m) / 1e6 }

// plus adds without running over: a sum that would is the largest there is.
func (m Micros) plus(n Micros) Micros {
	if n > math.MaxInt64-m {
		return math.MaxInt64
	}
	return m + n
}

// scale is a*b/c, rounded down, whatever a*b is; the largest number when that
// is too much, and 0 for what is below 0. c is above 0.
func scale(a, b, c int64) int64 {
	switch {
	case a <= 0 || b <= 0:
		return 0
	case a <= math.MaxInt64/b:
		return a * b / c
	}
	q := new(big.Int).Mul(big.NewInt(a), big.NewInt(b))
	if q.Quo(q, big.NewInt(c)); !q.IsInt64() {
		return math.MaxInt64
	}
	return q.Int64()
}

// Day is a calendar day in UTC, such as 2026-11-22. Days compare as texts do.
type Day string

// DayOf is the day of a moment.
func DayOf(t time.Time) Day { return Day(t.UTC().Format(time.DateOnly)) }

// Month is the month of a day, such as 2026-11.
func (d Day) Month() string { return string(d[:min(len(d), len("2006-01"))]) }

// FirstOfMonth is the moment at which the month of t began, in UTC.
func FirstOfMonth(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// NextMonth is the moment at which the month after that of t begins, in UTC.
func NextMonth(t time.Time) time.Time { return FirstOfMonth(t).AddDate(0, 1, 0) }

func nextDay(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, time.UTC)
}
