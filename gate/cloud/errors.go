package cloud

import (
	"errors"
	"fmt"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Permanent makes an error that trying again cannot mend, with a code that core
// and people decide by.
func Permanent(code skyport.Code, format string, args ...any) *skyport.Error {
	err := skyport.Errorf(code, format, args...)
	err.Cause = errors.Join(gate.ErrPermanent, err.Cause)
	return err
}

// Throttled is a cloud's wish for fewer calls.
type Throttled struct {
	// After is how long it wants to be left alone; 0: it did not say.
	After time.Duration
	Err   error
}

// Error tells what the cloud said.
func (t *Throttled) Error() string {
	if t.After == 0 {
		return fmt.Sprintf("the cloud wants fewer calls: %v", t.Err)
	}
	return fmt.Sprintf("the cloud wants no calls for %s: %v", t.After, t.Err)
}

// Unwrap returns an error of [skyport.CodeThrottled] around the cloud's own.
func (t *Throttled) Unwrap() error { return skyport.Errorf(skyport.CodeThrottled, "%w", t.Err) }
