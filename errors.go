package skyport

import (
	"errors"
	"fmt"
)

// Code is the stable name of an error: programs decide by it, texts may change.
// The catalogue with its HTTP statuses is below; docs/api.md lists it.
type Code string

const (
	CodeInvalid         Code = "invalid"          // 400 the request is malformed
	CodeInvalidScript   Code = "invalid_script"   // 422 the job script is wrong; Line and Column tell where
	CodeUnauthorized    Code = "unauthorized"     // 401 no certificate of ours
	CodeForbidden       Code = "forbidden"        // 403 somebody else's
	CodeNotFound        Code = "not_found"        // 404
	CodeConflict        Code = "conflict"         // 409 does not go with the state that is there
	CodeKeyReused       Code = "key_reused"       // 409 the Idempotency-Key was used for another request
	CodeTooLarge        Code = "too_large"        // 413
	CodeUnknownAccount  Code = "unknown_account"  // 422
	CodeUnknownSite     Code = "unknown_site"     // 422
	CodeUnknownFlavor   Code = "unknown_flavor"   // 422
	CodeUnknownImage    Code = "unknown_image"    // 422
	CodeUnsatisfiable   Code = "unsatisfiable"    // 422 no flavor of any allowed site can ever satisfy the request
	CodeNoEngine        Code = "no_engine"        // 422 the site's nodes have no container engine
	CodeInputNotStaged  Code = "input_not_staged" // 422 an input is a path that core may not read
	CodeInputUnreadable Code = "input_unreadable" // 422 an input cannot be read
	CodeNoSpace         Code = "no_space"         // 507 a disk is full
	CodeUnavailable     Code = "unavailable"      // 503 try again later
	CodeInternal        Code = "internal"         // 500 our mistake
	CodeUnsupported     Code = "unsupported"      // 422 asks for what this version or site cannot do
	CodeBudget          Code = "budget_used_up"   // 422 the account has spent what it may
	CodeNoCapacity      Code = "no_capacity"      // 503 the site has no such nodes left now; other flavors or sites may
	CodeQuota           Code = "quota_exceeded"   // 503 the site allows us no more of it
	CodeInterrupted     Code = "interrupted"      // 503 the site took spot nodes back
	CodeCredentials     Code = "credentials"      // 503 the site refuses the gate's credentials, or what they may do
	CodeThrottled       Code = "throttled"        // 503 the site wants fewer calls
)

// Status is the HTTP status that a code is sent with.
func (c Code) Status() int {
	switch c {
	case CodeInvalid:
		return 400
	case CodeUnauthorized:
		return 401
	case CodeForbidden:
		return 403
	case CodeNotFound:
		return 404
	case CodeConflict, CodeKeyReused:
		return 409
	case CodeTooLarge:
		return 413
	case CodeInvalidScript, CodeUnknownAccount, CodeUnknownSite, CodeUnknownFlavor, CodeUnknownImage,
		CodeUnsatisfiable, CodeNoEngine, CodeInputNotStaged, CodeInputUnreadable, CodeUnsupported, CodeBudget:
		return 422
	case CodeNoSpace:
		return 507
	case CodeUnavailable, CodeNoCapacity, CodeQuota, CodeInterrupted, CodeCredentials, CodeThrottled:
		return 503
	}
	return 500
}

// Error is an error that people and programs can act on. Wrap it freely; find
// it again with errors.As, or ask [CodeOf].
type Error struct {
	Code Code
	// Message says what failed and on what, without a full stop.
	Message string
	// Hint says what to do next; may be empty.
	Hint string
	// Line and Column tell the place in a job script, from 1; 0 elsewhere.
	Line, Column int
	// Cause is the error below, if any; Message already contains its text.
	Cause error
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause. Its text is already part of the message.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an [Error] with a code. %w works as in fmt.Errorf.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	cause := errors.Unwrap(err)
	if _, several := err.(interface{ Unwrap() []error }); several {
		cause = err
	}
	return &Error{Code: code, Message: err.Error(), Cause: cause}
}

// WithHint returns the error with what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// CodeOf returns the code of the first [Error] in err's chain, or
// [CodeInternal] when there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// HintOf returns the hint of the first [Error] in err's chain that has one.
func HintOf(err error) string {
	for e := (*Error)(nil); errors.As(err, &e); err = e.Cause {
		if e.Hint != "" {
			return e.Hint
		}
	}
	return ""
}
