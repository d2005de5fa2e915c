package skyport

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// The IDs of jobs, partitions and users are UUIDs in their canonical
// 36-character form. They are types of their own so that one cannot be passed as another.
type (
	JobID       string
	PartitionID string
	UserID      string
)

// NewJobID returns a fresh id. Ids are random (UUIDv4): node names are made of
// the first eight characters, so those must differ between ids of one minute,
// which rules out the time-ordered UUIDv7. Order comes from the store.
func NewJobID() JobID { return JobID(newID()) }

// NewPartitionID returns a fresh id; see [NewJobID].
func NewPartitionID() PartitionID { return PartitionID(newID()) }

// NewUserID returns a fresh id; see [NewJobID].
func NewUserID() UserID { return UserID(newID()) }

func newID() string { return uuid.NewString() }

// ParseJobID accepts exactly the canonical form of a UUID, lower or upper case.
func ParseJobID(s string) (JobID, error) {
	id, err := parseID(s)
	return JobID(id), err
}

// ParsePartitionID accepts exactly the canonical form of a UUID.
func ParsePartitionID(s string) (PartitionID, error) {
	id, err := parseID(s)
	return PartitionID(id), err
}

// ParseUserID accepts exactly the canonical form of a UUID.
func ParseUserID(s string) (UserID, error) {
	id, err := parseID(s)
	return UserID(id), err
}

func parseID(s string) (string, error) {
	// uuid.Parse also takes URNs and braces; an id has one spelling here.
	if len(s) != 36 {
		return "", fmt.Errorf("%q is not an id: want 36 characters like 0190c2f0-6f5e-7c3a-9b1d-2f6f0b8f5a11", Abbreviate(s, 60))
	}
	if err := uuid.Validate(s); err != nil {
		return "", fmt.Errorf("%q is not an id: %w", s, err)
	}
	return strings.ToLower(s), nil
}

// Short returns the first eight characters: enough for people and for names.
func (id JobID) Short() string { return short(string(id)) }

// Short returns the first eight characters; node names are built from it.
func (id PartitionID) Short() string { return short(string(id)) }

func short(s string) string {
	if len(s) < 8 {
		return s
	}
	return s[:8]
}

// Abbreviate returns s, cut to at most n bytes with a mark at the end. It is
// for showing untrusted text in messages.
func Abbreviate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
