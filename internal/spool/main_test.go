package spool

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The test binary also plays the other processes on a spool.
	if part := os.Getenv("SPOOL_TEST_PART"); part != "" {
		os.Exit(play(part))
	}
	goleak.VerifyTestMain(m)
}
