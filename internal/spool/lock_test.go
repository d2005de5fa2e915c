package spool

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
)

func TestOneCoreOnASpool(t *testing.T) {
	t.Parallel()
	p := newRoom(t)
	p.setup(t)
	layout := Layout{p.dir}

	// Another process is core.
	cmd := other(t, "lock", p.dir, p.home)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "locked\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	_, err = layout.Lock("core")
	if skyport.CodeOf(err) != skyport.CodeConflict || !strings.Contains(err.Error(), fmt.Sprintf("process %d", cmd.Process.Pid)) ||
		skyport.HintOf(err) == "" {
		t.Errorf("Lock: %v, want a conflict that names process %d, with a hint", err, cmd.Process.Pid)
	}
	address, err := layout.Announced("core")
	if err != nil || address.URL != "https://127.0.0.1:12345" || address.PID != cmd.Process.Pid {
		t.Errorf("announced is %+v, %v", address, err)
	}
	gate, err := layout.Lock("gate")
	if err != nil {
		t.Errorf("core's lock keeps the gate out: %v", err)
	} else if err := gate.Close(); err != nil {
		t.Error(err)
	}

	// Killed, it leaves the lock free, whatever its files say.
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the other process was not killed")
	}
	lock, err := layout.Lock("core")
	if err != nil {
		t.Fatalf("after the kill: %v", err)
	}
	if _, err := layout.Lock("core"); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("the second lock of one process: %v, want a refusal that names process %d", err, os.Getpid())
	}
	if err := lock.Announce("https://127.0.0.1:23456"); err != nil {
		t.Fatal(err)
	}
	s, err := Open(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CoreURL(); got != "https://127.0.0.1:23456" {
		t.Errorf("core is at %s, want what was announced", got)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := layout.Announced("core"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close the address is still announced: %v", err)
	}
	if got := s.CoreURL(); got != "https://127.0.0.1:8443" {
		t.Errorf("core is at %s, want what is configured", got)
	}
}

func TestURLOf(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		":8443":             "https://127.0.0.1:8443",
		"0.0.0.0:1":         "https://127.0.0.1:1",
		"[::]:1":            "https://[::1]:1",
		"[::1]:8443":        "https://[::1]:8443",
		"10.0.0.5:8443":     "https://10.0.0.5:8443",
		"example.org:8443":  "https://example.org:8443",
		"127.0.0.1:8444":    "https://127.0.0.1:8444",
		"[fe80::1%eth0]:80": "https://[fe80::1%eth0]:80",
	} {
		if got := URLOf(listen); got != want {
			t.Errorf("URLOf(%q) is %s, want %s", listen, got, want)
		}
	}
}
