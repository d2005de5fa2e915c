package spool

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/pki"
)

// play is one of the other processes that the tests need.
func play(part string) int {
	dir, home := os.Getenv("SPOOL_TEST_DIR"), os.Getenv("SPOOL_TEST_HOME")
	switch part {
	case "setup":
		fmt.Println("begin")
		if _, err := Setup(context.Background(), Options{Dir: dir, Home: home, User: "alice"}); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("done")
	case "lock":
		lock, err := Layout{dir}.Lock("core")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		if err := lock.Announce("https://127.0.0.1:12345"); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("locked")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until killed or told
	}
	return 0
}

func other(t *testing.T, part, dir, home string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "SPOOL_TEST_PART="+part, "SPOOL_TEST_DIR="+dir, "SPOOL_TEST_HOME="+home)
	return cmd
}

type room struct{ dir, home string }

func newRoom(t *testing.T) room {
	t.Helper()
	home := filepath.Join(t.TempDir(), "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	return room{filepath.Join(home, ".swm", "spool"), home}
}

func (p room) options() Options { return Options{Dir: p.dir, Home: p.home, User: "alice"} }

func (p room) setup(t *testing.T) Report {
	t.Helper()
	report, err := Setup(t.Context(), p.options())
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// tree reads all below the home directory: mode and content by path.
func (p room) tree(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(p.home, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		var content []byte
		if !entry.IsDir() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		files[path] = fmt.Sprintf("%v %s", info.Mode(), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// check says what is wrong with a spool that should be complete.
func (p room) check(t *testing.T) {
	t.Helper()
	s, err := Open(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	certificates, err := s.Certificates()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range certificates {
		if c.Problem != "" {
			t.Errorf("%s: %s", c.Name, c.Problem)
		}
	}
	if len(certificates) != 5 {
		t.Errorf("there are %d certificates, want 5", len(certificates))
	}
	for _, files := range []pki.Files{s.CoreFiles(), s.GateFiles(), {Pair: s.User("alice"), CA: s.CAChain()}, {Pair: HomePair(p.home), CA: s.CAChain()}} {
		if _, err := pki.NewReloader(files, nil); err != nil {
			t.Error(err)
		}
	}
	own, err := pki.ReadCertificates(s.User("alice").Cert)
	if err != nil {
		t.Fatal(err)
	}
	home, err := pki.ReadCertificates(HomePair(p.home).Cert)
	if err != nil {
		t.Fatal(err)
	}
	inSpool, _, err1 := pki.UserOf(own[0])
	atHome, _, err2 := pki.UserOf(home[0])
	if err1 != nil || err2 != nil || inSpool != atHome {
		t.Errorf("the user is %s in the spool and %s at home (%v, %v)", inSpool, atHome, err1, err2)
	}
}

func TestSetupMakesAWholeSpool(t *testing.T) {
	t.Parallel()
	p := newRoom(t)
	report := p.setup(t)
	p.check(t)
	if len(report.Warnings) > 0 {
		t.Errorf("warnings: %q", report.Warnings)
	}
	for path, found := range p.tree(t) {
		want := "-rw-------"
		switch {
		case path == p.home:
			continue // the test made it
		case strings.HasSuffix(path, "ca-chain-cert.pem"):
			want = "-rw-r--r--"
		case found[0] == 'd':
			want = "drwx------"
		}
		if !strings.HasPrefix(found, want) {
			t.Errorf("%s has mode %.10s, want %s", path, found, want)
		}
	}
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(report.Hosts, host) {
			t.Errorf("core's certificate is for %q, without %s", report.Hosts, host)
		}
	}
}

func TestSetupTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	p := newRoom(t)
	first := p.setup(t)
	before := p.tree(t)
	second := p.setup(t)
	if diff := cmp.Diff(before, p.tree(t)); diff != "" {
		t.Errorf("the second setup changed files:\n%s", diff)
	}
	if len(second.Made) > 0 || len(second.Warnings) > 0 {
		t.Errorf("the second setup made %q and warns %q", second.Made, second.Warnings)
	}
	if first.UserID != second.UserID {
		t.Errorf("the user was %s and is %s", first.UserID, second.UserID)
	}
}

// A setup that dies leaves the files that it made before, and perhaps a part of
// the next one under a temporary name. From each such state the next run
// completes, and keeps every file.
func TestSetupContinuesFromEveryPoint(t *testing.T) {
	t.Parallel()
	steps := len(newRoomMade(t).made)
	for done := range steps {
		t.Run(fmt.Sprint(done), func(t *testing.T) {
			t.Parallel()
			p := newRoomMade(t)
			for _, path := range p.made[done:] {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			half := filepath.Join(filepath.Dir(p.made[done]), pki.TempPrefix+filepath.Base(p.made[done])+"-123")
			before := p.tree(t)
			if err := os.WriteFile(half, []byte("-----BEGIN"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(p.dir); skyport.CodeOf(err) != skyport.CodeNotFound {
				t.Errorf("Open of the half spool: %v, want not_found", err)
			}
			p.room.setup(t)
			p.check(t)
			p.kept(t, before)
			if _, err := os.Lstat(half); err == nil {
				t.Errorf("%s was left", half)
			}
		})
	}
}

// Any one file may be lost; what is left stays and the rest is made to fit.
func TestSetupMendsEveryLoss(t *testing.T) {
	t.Parallel()
	for lost := range newRoomMade(t).made {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			t.Parallel()
			p := newRoomMade(t)
			path := p.made[lost]
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			report := p.room.setup(t)
			if caKey := path == (Layout{p.dir}).GridCA().Key || path == (Layout{p.dir}).ClusterCA().Key; caKey {
				if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], path) {
					t.Errorf("warnings %q, want one that names %s", report.Warnings, path)
				}
			} else if !slices.Contains(report.Made, path) {
				t.Errorf("%s was not made anew: %q", path, report.Made)
			}
			p.check(t)
			if report.UserID != p.user {
				t.Errorf("losing %s made the user %s into %s", path, p.user, report.UserID)
			}
		})
	}
}

type madeRoom struct {
	room
	made []string
	user skyport.UserID
}

func newRoomMade(t *testing.T) madeRoom {
	t.Helper()
	p := newRoom(t)
	report := p.setup(t)
	return madeRoom{p, report.Made, report.UserID}
}

// kept checks that all files of before are as they were.
func (p room) kept(t *testing.T, before map[string]string) {
	t.Helper()
	after := p.tree(t)
	for path, content := range before {
		if after[path] != content {
			t.Errorf("%s was changed", path)
		}
	}
}

// The same with real processes and kill -9 at random moments.
func TestSetupSurvivesKills(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("kills processes for a while")
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	for range 5 {
		p := newRoom(t)
		kills := 0
		for done := false; !done; {
			before := p.tree(t)
			cmd := other(t, "setup", p.dir, p.home)
			cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			// Somewhere between the first file and some time after the last.
			limit := time.Duration(random.IntN(5+5*kills)) * time.Millisecond
			killer := time.AfterFunc(limit, func() { _ = cmd.Process.Signal(syscall.SIGKILL) }) // may be over
			said, err := io.ReadAll(lines)
			if err != nil || len(said) > 0 && string(said) != "done\n" {
				t.Fatalf("seed %d, after %d kills: %s (%v)", seed, kills, said, err)
			}
			done = len(said) > 0
			_ = cmd.Wait() // killed or not
			killer.Stop()
			kills++
			for path := range before {
				if strings.Contains(path, pki.TempPrefix) || strings.HasSuffix(path, ".lock") {
					delete(before, path)
				}
			}
			p.kept(t, before)
			if kills > 200 {
				t.Fatalf("seed %d: never completes", seed)
			}
		}
		p.check(t)
		for path := range p.tree(t) {
			if strings.Contains(path, pki.TempPrefix) {
				t.Errorf("seed %d: %s was left", seed, path)
			}
		}
	}
}

func TestSetupLeavesTheCertificateOfAnotherInstallation(t *testing.T) {
	t.Parallel()
	p, second := newRoom(t), newRoom(t)
	p.setup(t)
	second.home = p.home
	before := p.tree(t)
	report := second.setup(t)
	p.kept(t, before)
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], HomePair(p.home).Cert) {
		t.Errorf("warnings %q, want one that names %s", report.Warnings, HomePair(p.home).Cert)
	}
	if _, err := Open(second.dir); err != nil {
		t.Errorf("the second spool: %v", err)
	}
}

func TestSetupRefuses(t *testing.T) {
	t.Parallel()
	t.Run("a newer spool", func(t *testing.T) {
		t.Parallel()
		p := newRoom(t)
		p.setup(t)
		layout := Layout{p.dir}
		if err := os.WriteFile(layout.VersionFile(), []byte("2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(layout.Node().Cert); err != nil {
			t.Fatal(err)
		}
		before := p.tree(t)
		_, setupErr := Setup(t.Context(), p.options())
		_, openErr := Open(p.dir)
		for _, err := range []error{setupErr, openErr} {
			if skyport.CodeOf(err) != skyport.CodeUnsupported || !strings.Contains(err.Error(), "newer") || skyport.HintOf(err) == "" {
				t.Errorf("%v, want an unsupported spool of a newer version, with a hint", err)
			}
		}
		if diff := cmp.Diff(before, p.tree(t)); diff != "" {
			t.Errorf("the newer spool was touched:\n%s", diff)
		}
	})
	t.Run("a directory of other things", func(t *testing.T) {
		t.Parallel()
		p := newRoom(t)
		if err := os.MkdirAll(p.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.dir, "thesis.tex"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := p.tree(t)
		if _, err := Setup(t.Context(), p.options()); skyport.CodeOf(err) != skyport.CodeConflict {
			t.Errorf("%v, want a conflict", err)
		}
		if diff := cmp.Diff(before, p.tree(t)); diff != "" {
			t.Errorf("the directory was touched:\n%s", diff)
		}
	})
	for name, change := range map[string]func(*Options){
		"user with a slash":  func(o *Options) { o.User = "../../etc" },
		"user named gate":    func(o *Options) { o.User = "gate" },
		"wrong listen":       func(o *Options) { o.CoreListen = "8443" },
		"port out of range":  func(o *Options) { o.GateListen = ":70000" },
		"no host name":       func(o *Options) { o.Names = []string{"not a host"} },
		"listen with quotes": func(o *Options) { o.CoreListen = "a\"b:1" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newRoom(t)
			options := p.options()
			change(&options)
			if _, err := Setup(t.Context(), options); skyport.CodeOf(err) != skyport.CodeInvalid {
				t.Errorf("%v, want invalid", err)
			}
			if _, err := os.Lstat(p.dir); err == nil {
				t.Error("something was made")
			}
		})
	}
	t.Run("a lost grid CA", func(t *testing.T) {
		t.Parallel()
		p := newRoom(t)
		p.setup(t)
		layout := Layout{p.dir}
		for _, path := range []string{layout.GridCA().Cert, layout.GridCA().Key} {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		report := p.setup(t) // the certificate comes back from the chain
		if len(report.Warnings) == 0 {
			t.Error("no warning")
		}
		if err := os.Remove(layout.GridCA().Cert); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(layout.CAChain()); err != nil {
			t.Fatal(err)
		}
		if _, err := Setup(t.Context(), p.options()); skyport.CodeOf(err) != skyport.CodeConflict {
			t.Errorf("%v, want a conflict and no new grid CA", err)
		}
	})
}

func TestSetupOptionsReachTheConfiguration(t *testing.T) {
	t.Parallel()
	p := newRoom(t)
	options := p.options()
	options.CoreListen, options.GateListen, options.Names = "127.0.0.1:0", "[::1]:9444", []string{"sky.example.org", "10.1.2.3"}
	report, err := Setup(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Config.Core.Listen != "127.0.0.1:0" || s.Config.Gate.Listen != "[::1]:9444" {
		t.Errorf("listens on %q and %q", s.Config.Core.Listen, s.Config.Gate.Listen)
	}
	for _, name := range options.Names {
		if !slices.Contains(report.Hosts, name) {
			t.Errorf("core's certificate is for %q, without %s", report.Hosts, name)
		}
	}
	options.CoreListen, options.Names = ":9999", []string{"late.example.org"}
	report, err = Setup(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(report.Warnings, "\n"); len(report.Warnings) != 2 ||
		!strings.Contains(text, "core.listen stays") || !strings.Contains(text, "late.example.org") {
		t.Errorf("warnings %q, want one for the address and one for the name", report.Warnings)
	}
}
