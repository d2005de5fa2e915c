package main

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
)

const adaID skyport.UserID = "0b5ab3a1-59e5-4a0c-8f0e-6d4a8d7a1b01"

// run runs the program with a standard input of its own.
func (f *fakeCore) run(stdin any, args ...string) (code int, out, errs string) {
	f.t.Helper()
	var stdout, stderr strings.Builder
	in, _ := stdin.(*os.File)
	a := newApp(in, &stdout, &stderr)
	if text, ok := stdin.(string); ok {
		a.In = strings.NewReader(text)
	}
	a.Now = func() time.Time { return noon.Add(5 * time.Minute) }
	a.Env = func(name string) string { return f.env[name] }
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	code = run(ctx, a, append([]string{"--spool", f.spool}, args...))
	return code, stdout.String(), stderr.String()
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := f.run("hunter2\n", "secret", "set", "registry", "x.org:5000", "--username", "ada", "--password-stdin", "--ca", ca)
	if code != 0 || out != "registry x.org:5000: kept\n" || errs != "" {
		t.Errorf("set ends with %d: %q, %q", code, out, errs)
	}
	if got, want := f.SecretValue(adaID, "registry", "x.org:5000"), (api.SecretValue{Username: "ada", Password: "hunter2", CA: "PEM"}); got != want {
		t.Error("another value arrived")
	}
	if code, _, errs := f.run("", "secret", "set", "registry", "lan:5000", "--ca", ca); code != 0 {
		t.Errorf("a CA alone: %d, %q", code, errs)
	}
	_, out, _ = f.run("", "secret", "list")
	golden(t, "lists/secrets.txt", out)
	_, out, _ = f.run("", "secret", "list", "--json")
	golden(t, "lists/secrets.json", out)
	if code, out, _ := f.run("", "secret", "delete", "registry", "lan:5000"); code != 0 || out != "registry lan:5000: forgotten\n" {
		t.Errorf("delete: %d, %q", code, out)
	}
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"delete registry lan:5000":                             {exitNotFound, "there is no secret"},
		"set registry x.org":                                   {exitUsage, "--username"},
		"set registry x.org --password-stdin":                  {exitUsage, "--username"},
		"set registry x.org --username u":                      {exitUsage, "--password-stdin"},
		"set registry x.org --username u --password-stdin":     {exitUsage, "no password"},
		"set token x --username u":                             {exitUsage, "registry"},
		"set registry":                                         {exitUsage, "registry HOST"},
		"set registry x.org --ca " + ca + ".none":              {exitRefused, "no such file"},
		"set registry x.org --username u --password something": {exitUsage, "unknown flag"},
	} {
		code, out, errs := f.run("", append([]string{"secret"}, strings.Fields(args)...)...)
		if code != want.code || !strings.Contains(errs, want.says) || out != "" {
			t.Errorf("%s: %d, %q, %q", args, code, out, errs)
		}
	}
}

// At a terminal the password is asked for and does not show.
func TestPasswordIsAskedWithoutEcho(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	terminal, program, err := pty.Open()
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	defer terminal.Close()
	shown := make(chan string)
	go func() {
		defer close(shown)
		for lines := bufio.NewScanner(terminal); lines.Scan(); {
			shown <- lines.Text()
		}
	}()
	if _, err := terminal.WriteString("hunter2\n"); err != nil { // the terminal keeps it until somebody reads
		t.Fatal(err)
	}
	<-shown // the terminal itself echoes what comes before the question
	code, _, errs := f.run(program, "secret", "set", "registry", "x.org", "-u", "ada")
	if code != 0 || errs != "Password of ada at x.org: \n" {
		t.Errorf("ends with %d, says %q", code, errs)
	}
	if got := f.SecretValue(adaID, "registry", "x.org"); got.Password != "hunter2" {
		t.Error("another password arrived")
	}
	if _, err := program.WriteString("the end\n"); err != nil {
		t.Fatal(err)
	}
	for line := range shown {
		if strings.Contains(line, "hunter2") {
			t.Error("the password shows")
		}
		if strings.Contains(line, "the end") {
			break
		}
	}
	if err := program.Close(); err != nil {
		t.Error(err)
	}
	for range shown { //nolint:revive // until the reader has ended
	}
}
