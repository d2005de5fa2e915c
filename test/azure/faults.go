package azuretest

import (
	"net/http"
	"regexp"
	"time"
)

// Faults say what goes wrong. Numbers from 0 to 1 are chances for each call of
// Resource Manager; token service, prices and the emulator's own paths fail by
// rules only.
type Faults struct {
	Throttle   float64       `json:"throttle,omitempty"`    // 429 before anything is done
	Error      float64       `json:"error,omitempty"`       // 5xx before anything is done
	ErrorAfter float64       `json:"error_after,omitempty"` // 5xx after it was done
	CutBefore  float64       `json:"cut_before,omitempty"`  // the connection ends before anything is done
	CutAfter   float64       `json:"cut_after,omitempty"`   // the connection ends after it was done
	Duplicate  float64       `json:"duplicate,omitempty"`   // done twice, the second answer is told
	Slow       float64       `json:"slow,omitempty"`        // answered after Delay
	Delay      time.Duration `json:"delay,omitempty"`
	RetryAfter time.Duration `json:"retry_after,omitempty"` // of 429; 0: the emulator's
	// Rate is how many calls a second are served before 429; 0: any.
	Rate float64 `json:"rate,omitempty"`

	// ListLag and GetLag are how old lists and single answers are.
	ListLag time.Duration `json:"list_lag,omitempty"`
	GetLag  time.Duration `json:"get_lag,omitempty"`

	// NoCapacity is the chance that a virtual machine finds no host, SoldOut are
	// sizes that never do, SoldOutSpot those that do not as spot; Unavailable ones
	// are refused before anything is made.
	NoCapacity  float64  `json:"no_capacity,omitempty"`
	SoldOut     []string `json:"sold_out,omitempty"`
	SoldOutSpot []string `json:"sold_out_spot,omitempty"`
	Unavailable []string `json:"unavailable,omitempty"`

	// Down lets everything be answered by 503.
	Down bool `json:"down,omitempty"`
	// Deny are actions that the client has no role for, such as
	// Microsoft.Compute/virtualMachines/write; a trailing * stands for the rest.
	Deny []string `json:"deny,omitempty"`
	// NoClient has the token service refuse the client.
	NoClient bool `json:"no_client,omitempty"`
	// Locked are groups that cannot be deleted.
	Locked []string `json:"locked,omitempty"`

	Rules []Rule `json:"rules,omitempty"`
}

// Rule is a fault that is due exactly when it says.
type Rule struct {
	// Method and Path say which calls; empty: any. Path is a regular expression
	// over path and query that need not match the whole and minds no case.
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`
	// Skip so many of them, then Times are met; 0: one, < 0: all.
	Skip  int `json:"skip,omitempty"`
	Times int `json:"times,omitempty"`
	// Do is what happens.
	Do Fault `json:"do"`
	// Status, Code and Message of FaultError and FaultErrorAfter; empty: 500.
	Status  int           `json:"status,omitempty"`
	Code    string        `json:"code,omitempty"`
	Message string        `json:"message,omitempty"`
	Delay   time.Duration `json:"delay,omitempty"` // of FaultSlow; of FaultThrottle: Retry-After
}

// Fault is something that can go wrong with a call.
type Fault string

const (
	FaultThrottle   Fault = "throttle"
	FaultError      Fault = "error"
	FaultErrorAfter Fault = "error-after"
	FaultCutBefore  Fault = "cut-before"
	FaultCutAfter   Fault = "cut-after"
	FaultDuplicate  Fault = "duplicate"
	FaultSlow       Fault = "slow"
)

// SetFaults replaces all faults.
func (e *Emulator) SetFaults(f Faults) {
	e.chance.Lock()
	defer e.chance.Unlock()
	e.chance.faults = f
	e.chance.used = make([]int, len(f.Rules))
	e.chance.bucket = bucket{}
}

// Faults tells the faults that are set.
func (e *Emulator) Faults() Faults {
	e.chance.Lock()
	defer e.chance.Unlock()
	return e.chance.faults
}

// bucket counts calls against a rate.
type bucket struct {
	left float64
	last time.Time
}

func (b *bucket) take(rate float64, now time.Time) bool {
	if b.last.IsZero() {
		b.left = rate
	} else {
		b.left = min(max(rate, 1), b.left+rate*now.Sub(b.last).Seconds())
	}
	b.last = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// decide says what goes wrong with a call. manager is true for Resource Manager.
func (e *Emulator) decide(req *http.Request, manager bool) Rule {
	e.chance.Lock()
	defer e.chance.Unlock()
	f := &e.chance.faults
	for i, r := range f.Rules {
		if r.Method != "" && r.Method != req.Method {
			continue
		}
		if r.Path != "" {
			if ok, err := regexp.MatchString("(?i)"+r.Path, req.URL.RequestURI()); err != nil || !ok {
				continue
			}
		}
		e.chance.used[i]++
		times := r.Times
		if times == 0 {
			times = 1
		}
		if n := e.chance.used[i]; n > r.Skip && (times < 0 || n <= r.Skip+times) {
			return r
		}
	}
	switch {
	case f.Down:
		return Rule{Do: FaultError, Status: http.StatusServiceUnavailable, Code: "ServerUnavailable"}
	case !manager:
		return Rule{}
	case f.Rate > 0 && !e.chance.bucket.take(f.Rate, time.Now()):
		return Rule{Do: FaultThrottle, Delay: f.RetryAfter}
	}
	for _, c := range []struct {
		chance float64
		do     Rule
	}{
		{f.Throttle, Rule{Do: FaultThrottle, Delay: f.RetryAfter}},
		{f.Error, Rule{Do: FaultError}},
		{f.ErrorAfter, Rule{Do: FaultErrorAfter}},
		{f.CutBefore, Rule{Do: FaultCutBefore}},
		{f.CutAfter, Rule{Do: FaultCutAfter}},
		{f.Duplicate, Rule{Do: FaultDuplicate}},
		{f.Slow, Rule{Do: FaultSlow, Delay: f.Delay}},
	} {
		if c.chance > 0 && e.chance.rng.Float64() < c.chance {
			if (c.do.Do == FaultError || c.do.Do == FaultErrorAfter) && e.chance.rng.IntN(2) == 0 {
				c.do.Status, c.do.Code = http.StatusServiceUnavailable, "ServerUnavailable"
			}
			return c.do
		}
	}
	return Rule{}
}

// lucky says yes with a chance.
func (e *Emulator) lucky(chance float64) bool {
	if chance <= 0 {
		return false
	}
	e.chance.Lock()
	defer e.chance.Unlock()
	return e.chance.rng.Float64() < chance
}
