package main

import (
	"os"
	"testing"

	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/gatetest"
)

func TestProvider(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		t.Skip("there is no OpenSSH server (package openssh-server)")
	}
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		dir := t.TempDir()
		open := func(*testing.T) gate.Provider { return &provider{dir: dir} }
		return gatetest.Fixture{
			Provider: open(t),
			Nodes:    1,    // in one partition
			Remake:   open, // the gate was killed and starts again
			Left:     func(*testing.T) []string { return left(t, dir) },
		}
	})
}

// left names what there is: directories and processes.
func left(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	for range running(dir) {
		all = append(all, "a process")
	}
	return all
}
