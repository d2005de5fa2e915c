package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/pki"
	"github.com/openworkload/skyport/internal/spool"
)

// app is what all commands share: the streams, the flags that every command
// understands, and what follows from them.
type app struct {
	Spool   string // directory of the spool, absolute once a command runs
	CoreURL string // URL of core as asked for; empty: found out
	JSON    bool   // print JSON for programs

	In       io.Reader
	Out, Err *screen

	Now func() time.Time
	Env func(string) string // the environment

	began bool // the arguments were right; a command runs
}

func newApp(in io.Reader, out, errs io.Writer) *app {
	return &app{In: in, Out: newScreen(out), Err: newScreen(errs), Now: time.Now, Env: os.Getenv}
}

// begin settles the flags that all commands share, before the command's own
// run function.
func (a *app) begin() error {
	a.began = true
	dir, err := spool.Default(cmp.Or(a.Spool, a.Env("SWM_SPOOL")))
	if err != nil {
		return fmt.Errorf("find the spool: %w", err)
	}
	a.Spool = dir
	a.CoreURL = cmp.Or(a.CoreURL, a.Env("SWM_CORE"))
	return nil
}

// client returns the client of core, as the person who runs this. It does not
// connect yet.
func (a *app) client() (*client.Client, error) {
	url, err := a.coreURL()
	if err != nil {
		return nil, err
	}
	pair, err := a.certificate()
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Options{
		URL:       url,
		CAFile:    cmp.Or(a.Env("SWM_CA"), spool.Layout{Dir: a.Spool}.CAChain()),
		CertFile:  pair.Cert,
		KeyFile:   pair.Key,
		UserAgent: "skyport/" + readVersion().Version,
		Patience:  corePatience,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare to call core at %s: %w", url, err)
	}
	return c, nil
}

// corePatience is how long a call is tried again while core cannot be reached:
// long enough for a restart of core, short enough for a person who forgot to
// start it.
const corePatience = 3 * time.Second

// coreURL is where core is: as asked for, else where the one of this spool
// announced itself, else where the configuration makes it listen.
func (a *app) coreURL() (string, error) {
	if a.CoreURL != "" {
		return a.CoreURL, nil
	}
	layout := spool.Layout{Dir: a.Spool}
	config, err := spool.LoadConfig(layout.ConfigFile())
	if err != nil {
		return "", err
	}
	s := spool.Spool{Layout: layout, Config: config}
	return s.CoreURL(), nil
}

// certificate finds the certificate of the person who runs this: in the home
// directory when the spool is the default one, else in the spool.
func (a *app) certificate() (pki.Pair, error) {
	if cert, key := a.Env("SWM_CERT"), a.Env("SWM_KEY"); cert != "" || key != "" {
		if cert == "" || key == "" {
			return pki.Pair{}, usagef("SWM_CERT and SWM_KEY go together: only one of them is set")
		}
		return pki.Pair{Cert: cert, Key: key}, nil
	}
	var candidates []pki.Pair
	if home, err := os.UserHomeDir(); err == nil && a.Spool == filepath.Join(home, ".swm", "spool") {
		candidates = append(candidates, spool.HomePair(home))
	}
	layout := spool.Layout{Dir: a.Spool}
	if me, err := user.Current(); err == nil && spool.CheckUserName(me.Username) == nil {
		candidates = append(candidates, layout.User(me.Username))
	}
	// A spool of one user is that user's, whatever the account is called.
	if users, err := os.ReadDir(layout.Users()); err == nil && len(users) == 1 {
		candidates = append(candidates, layout.User(users[0].Name()))
	}
	for _, pair := range candidates {
		_, err := os.Stat(pair.Cert)
		if err == nil {
			return pair, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return pki.Pair{}, skyport.Errorf(skyport.CodeUnauthorized, "find your certificate: %w", err)
		}
	}
	return pki.Pair{}, skyport.Errorf(skyport.CodeUnauthorized, "find your certificate: there is none for you in %s", a.Spool).
		WithHint("skyport setup makes everything; skyport cert user makes one for a further person; --spool and SWM_CERT say where it is")
}
