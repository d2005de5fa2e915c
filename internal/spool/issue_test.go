package spool

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/pki"
)

func TestAddUser(t *testing.T) {
	t.Parallel()
	p := newRoom(t)
	p.setup(t)
	s, err := Open(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	id := skyport.NewUserID()
	cert, made, err := s.AddUser("bob", id)
	if err != nil || cert.ID != id || cert.Problem != "" || len(made) != 2 {
		t.Fatalf("AddUser: %+v, made %q, %v", cert, made, err)
	}
	before := p.tree(t)
	if again, made, err := s.AddUser("bob", ""); err != nil || again.ID != id || len(made) != 0 {
		t.Errorf("again: %+v, made %q, %v", again, made, err)
	}
	if _, _, err := s.AddUser("bob", skyport.NewUserID()); skyport.CodeOf(err) != skyport.CodeConflict {
		t.Errorf("with another id: %v, want a conflict", err)
	}
	for _, name := range []string{"", "node", "..", "a/b", "-x", ".x", strings.Repeat("x", 65), "a\nb", "ü"} {
		if _, _, err := s.AddUser(name, ""); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("name %q: %v, want invalid", name, err)
		}
	}
	p.kept(t, before)
}

func TestRenewReachesTheHome(t *testing.T) {
	t.Parallel()
	p := newRoom(t)
	p.setup(t)
	s, err := Open(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(HomePair(p.home).Cert)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := s.Renew("alice", p.home)
	if err != nil || cert.Problem != "" {
		t.Fatalf("Renew: %+v, %v", cert, err)
	}
	home, err := os.ReadFile(HomePair(p.home).Cert)
	if err != nil {
		t.Fatal(err)
	}
	if own, err := os.ReadFile(s.User("alice").Cert); err != nil || !bytes.Equal(home, own) || bytes.Equal(home, old) {
		t.Errorf("the home does not have the renewed certificate: %v", err)
	}
	// Another user's renewal is nothing to this home.
	if _, _, err := s.AddUser("bob", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Renew("bob", p.home); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(HomePair(p.home).Cert); err != nil || !bytes.Equal(home, now) {
		t.Errorf("bob's renewal changed alice's home: %v", err)
	}
	for name, want := range map[string]skyport.Code{
		"carol": skyport.CodeNotFound, "../alice": skyport.CodeNotFound, "grid": skyport.CodeUnsupported, "cluster": skyport.CodeUnsupported,
	} {
		if _, err := s.Renew(name, p.home); skyport.CodeOf(err) != want {
			t.Errorf("Renew(%q): %v, want %s", name, err, want)
		}
	}
}

func TestRenewDueRenewsOnlyWhatIsDue(t *testing.T) {
	t.Parallel()
	p := newRoom(t)
	p.setup(t)
	s, err := Open(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if renewed, err := s.RenewDue(t.Context(), p.home); err != nil || len(renewed) != 0 {
		t.Fatalf("of fresh certificates %q were renewed, %v", renewed, err)
	}
	// A life of a moment is past its two thirds at once.
	s.Config.CertificateLife = time.Nanosecond
	if _, err := s.Renew("alice", p.home); err != nil {
		t.Fatal(err)
	}
	s.Config.CertificateLife = pki.LeafLife
	if renewed, err := s.RenewDue(t.Context(), p.home); err != nil || !slices.Equal(renewed, []string{"alice"}) {
		t.Errorf("renewed %q, %v: want alice", renewed, err)
	}
	p.check(t)
}

func TestRenewServerKeepsAndAddsHosts(t *testing.T) {
	t.Parallel()
	p := newRoom(t)
	p.setup(t)
	s, err := Open(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RenewServer(t.Context(), pki.RoleCore, []string{"one.example.org"}); err != nil {
		t.Fatal(err)
	}
	cert, err := s.RenewServer(t.Context(), pki.RoleCore, []string{"two.example.org", "10.0.0.7", "ONE.example.org"})
	if err != nil || cert.Problem != "" {
		t.Fatalf("%+v, %v", cert, err)
	}
	for _, host := range []string{"localhost", "127.0.0.1", "two.example.org", "10.0.0.7"} {
		if !slices.Contains(cert.Hosts, host) {
			t.Errorf("hosts %q lack %s", cert.Hosts, host)
		}
	}
	n := 0
	for _, host := range cert.Hosts {
		if strings.EqualFold(host, "one.example.org") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("hosts %q have one.example.org %d times, want once", cert.Hosts, n)
	}
	p.check(t)
}

func TestCertificatesTellProblems(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(t *testing.T, l Layout)
		whose  string
		want   string
	}{
		"others can read a key": {func(t *testing.T, l Layout) {
			if err := os.Chmod(l.Node().Key, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "node", "others can read"},
		"no key": {func(t *testing.T, l Layout) {
			if err := os.Remove(l.Gate().Key); err != nil {
				t.Fatal(err)
			}
		}, "gate", "no such file"},
		"roles mixed up": {func(t *testing.T, l Layout) {
			for from, to := range map[string]string{l.Node().Cert: l.Gate().Cert, l.Node().Key: l.Gate().Key} {
				content, err := os.ReadFile(from)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(to, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}, "gate", "role core"},
		"nonsense": {func(t *testing.T, l Layout) {
			if err := os.WriteFile(l.User("alice").Cert, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "alice", "no certificate in it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newRoom(t)
			p.setup(t)
			c.damage(t, Layout{p.dir})
			list, err := Layout{p.dir}.Certificates()
			if err != nil {
				t.Fatal(err)
			}
			for _, cert := range list {
				if has := strings.Contains(cert.Problem, c.want); has != (cert.Name == c.whose) {
					t.Errorf("%s: problem %q", cert.Name, cert.Problem)
				}
			}
		})
	}
}
