package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/pki"
	"github.com/openworkload/skyport/internal/spool"
)

func newDoctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong and say how to mend it",
		Long: `Look at the spool with its file modes, the configuration, the certificates, the
clock, the disk, the ports, the gate with its clouds, core and the sites. Each
line says ok, warn or fail, and below what is not ok how to mend it. Nothing is
changed.

With --core and no spool on this machine only what concerns a terminal is
looked at. The exit code is 1 when something fails, warnings are no failure.`,
		Example:           lines("skyport doctor", "skyport doctor --json | jq '.[] | select(.status != \"ok\")'"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), a) },
	}
}

// finding is the outcome of one check.
type finding struct {
	Check   string `json:"check"`
	Status  string `json:"status"` // ok, warn or fail
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// doctor collects findings, in the order of the checks.
type doctor struct {
	a        *app
	layout   spool.Layout
	findings []finding
}

func runDoctor(ctx context.Context, a *app) error {
	d := &doctor{a: a, layout: spool.Layout{Dir: a.Spool}}
	d.look(ctx)
	failed := false
	for _, f := range d.findings {
		failed = failed || f.Status == "fail"
	}
	if a.JSON {
		if err := a.printJSON(d.findings); err != nil {
			return err
		}
	}
	if failed {
		return endWith(exitFailure)
	}
	return a.Out.failed()
}

// look makes all checks. What a failed check rests on is not checked again.
func (d *doctor) look(ctx context.Context) {
	remote := d.a.CoreURL != "" && !exists(d.layout.VersionFile())
	if !remote {
		s, err := spool.Open(d.a.Spool)
		if err != nil {
			d.fail("spool", err)
			return
		}
		d.ok("spool", "%s, version %d", s.Dir, spool.Version)
		d.modes()
		d.disk()
		d.certificates()
		d.port("core port", "core", s.Config.Core.Listen)
		if s.Config.Gate.URL == "" {
			d.port("gate port", "gate", s.Config.Gate.Listen)
		}
		d.gate(ctx, s)
		if s.Config.Gate.URL == "" {
			d.clouds(s)
		}
		if s.Config.Docker.Enabled && s.Config.Gate.URL == "" {
			d.docker(ctx, s)
		}
	}
	d.core(ctx)
}

func (d *doctor) add(f finding) {
	d.findings = append(d.findings, f)
	if d.a.JSON {
		return
	}
	st := map[string]style{"ok": green, "warn": yellow, "fail": red}[f.Status]
	d.a.Out.printf("%s  %-12s  %s\n", d.a.Out.paint(st, fmt.Sprintf("%-4s", f.Status)), f.Check, oneLine(f.Message))
	if f.Hint != "" {
		d.a.Out.printf("%s%s %s\n", strings.Repeat(" ", 20), d.a.Out.paint(cyan, "mend:"), oneLine(f.Hint))
	}
}

func (d *doctor) ok(check, format string, args ...any) {
	d.add(finding{Check: check, Status: "ok", Message: fmt.Sprintf(format, args...)})
}

func (d *doctor) warn(check, hint, format string, args ...any) {
	d.add(finding{check, "warn", fmt.Sprintf(format, args...), hint})
}

// fail tells an error with the hint that it carries.
func (d *doctor) fail(check string, err error) {
	d.add(finding{check, "fail", err.Error(), skyport.HintOf(err)})
}

// modes looks for files that others could read or change.
func (d *doctor) modes() {
	var open []string
	look := func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err //nolint:wrapcheck // names the path
		}
		secret := e.IsDir() || filepath.Base(path) == "key.pem"
		if mode := info.Mode().Perm(); secret && mode&0o077 != 0 || mode&0o022 != 0 && e.Type()&fs.ModeSymlink == 0 {
			open = append(open, path)
		}
		return nil
	}
	err := filepath.WalkDir(filepath.Join(d.layout.Dir, "secure"), look)
	if info, statErr := os.Stat(d.layout.Dir); statErr != nil {
		err = errors.Join(err, statErr)
	} else if info.Mode().Perm()&0o077 != 0 {
		open = append(open, d.layout.Dir)
	}
	switch {
	case err != nil:
		d.fail("modes", fmt.Errorf("look at the modes of %s: %w", d.layout.Dir, err))
	case len(open) > 0:
		d.fail("modes", skyport.Errorf(skyport.CodeInvalid, "%s and %d more can be read or changed by others", open[0], len(open)-1).
			WithHint("chmod -R go= %s", shellQuote(d.layout.Dir)))
	default:
		d.ok("modes", "only you can read the keys")
	}
}

const (
	diskFail = 100 << 20
	diskWarn = 2 << 30
)

func (d *doctor) disk() {
	var st unix.Statfs_t
	if err := unix.Statfs(d.layout.Dir, &st); err != nil {
		d.fail("disk", fmt.Errorf("look at the disk of %s: %w", d.layout.Dir, err))
		return
	}
	free := skyport.Bytes(st.Bavail) * skyport.Bytes(st.Bsize) //nolint:gosec // sizes of disks fit
	const mend = "make room, or move the spool to a larger disk: jobs need room for logs and results"
	switch {
	case free < diskFail:
		d.fail("disk", skyport.Errorf(skyport.CodeNoSpace, "only %s are free below %s", free, d.layout.Dir).WithHint(mend))
	case free < diskWarn:
		d.warn("disk", mend, "only %s are free below %s", free, d.layout.Dir)
	default:
		d.ok("disk", "%s free", free)
	}
}

// certificates looks at what proves who is who: dates, and with them the clock.
func (d *doctor) certificates() {
	mine, err := d.a.certificate()
	if err != nil {
		d.fail("certificates", err)
		return
	}
	earliest, latest := time.Time{}, time.Time{}
	healthy := true
	for _, c := range []struct{ what, file string }{
		{"grid CA", d.layout.GridCA().Cert},
		{"cluster CA", d.layout.ClusterCA().Cert},
		{"core", d.layout.Node().Cert},
		{"gate", d.layout.Gate().Cert},
		{"yours", mine.Cert},
	} {
		certs, err := pki.ReadCertificates(c.file)
		if err != nil {
			healthy = false
			d.fail("certificates", skyport.Errorf(skyport.CodeInvalid, "certificate %s: %w", c.what, err).WithHint("skyport setup makes what is missing"))
			continue
		}
		healthy = d.certificate(c.what, certs[0]) && healthy
		if earliest.IsZero() || certs[0].NotAfter.Before(earliest) {
			earliest = certs[0].NotAfter
		}
		if certs[0].NotBefore.After(latest) {
			latest = certs[0].NotBefore
		}
	}
	if healthy {
		d.ok("certificates", "valid until %s", earliest.Local().Format(time.DateOnly))
	}
	if now := d.a.Now(); now.Before(latest) {
		d.fail("clock", skyport.Errorf(skyport.CodeInvalid, "the clock says %s, but a certificate was made after that", now.Format(time.DateTime)).
			WithHint("set the clock of this machine, best by a time service"))
	} else {
		d.ok("clock", "%s", now.Format(time.DateTime))
	}
}

// certificate says whether all is well with one certificate.
func (d *doctor) certificate(what string, cert *x509.Certificate) bool {
	now := d.a.Now()
	left := count(int(cert.NotAfter.Sub(now).Hours()/24), "day")
	switch {
	case now.After(cert.NotAfter):
		d.fail("certificates", skyport.Errorf(skyport.CodeInvalid, "certificate %s expired on %s", what, cert.NotAfter.Format(time.DateOnly)).
			WithHint("skyport cert renew"))
		return false
	case cert.IsCA && cert.NotAfter.Sub(now) < 30*24*time.Hour, !cert.IsCA && now.After(pki.Due(cert)):
		d.warn("certificates", "skyport cert renew", "certificate %s ends in %s", what, left)
		return false
	}
	return true
}

// port says whether a daemon runs, and if not, whether it could.
func (d *doctor) port(check, daemon, listen string) {
	if lock, err := d.layout.Lock(daemon); err != nil {
		d.ok(check, "%s: %s runs", listen, daemon)
		return
	} else if err := lock.Close(); err != nil {
		d.fail(check, err)
		return
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		d.fail(check, skyport.Errorf(skyport.CodeConflict, "%s does not run, and could not: %w", daemon, err).
			WithHint("end what uses the port, or set %s.listen in %s", daemon, d.layout.ConfigFile()))
		return
	}
	if err := l.Close(); err != nil {
		d.fail(check, fmt.Errorf("try port %s: %w", listen, err))
		return
	}
	d.ok(check, "%s is free", listen)
}

// doctorPatience is how long each daemon has to answer.
const doctorPatience = 5 * time.Second

func (d *doctor) gate(ctx context.Context, s *spool.Spool) {
	address := s.GateURL()
	u, err := url.Parse(address)
	if err != nil {
		d.fail("gate", fmt.Errorf("find the gate: %w", err))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		d.fail("gate", skyport.Errorf(skyport.CodeUnavailable, "the gate at %s cannot be reached: %w", address, err).
			WithHint("start it: skyport up, or skyport gate"))
		return
	}
	_ = conn.Close() // it was only to see that somebody listens
	d.ok("gate", "listens at %s", address)
}

func (d *doctor) core(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	c, err := d.a.client()
	if err != nil {
		d.fail("core", err)
		return
	}
	defer c.Close()
	version, err := c.Version(ctx)
	if err != nil {
		if skyport.HintOf(err) == "" {
			err = skyport.Errorf(skyport.CodeOf(err), "%w", err).WithHint("start it: skyport up, or skyport core")
		}
		d.fail("core", err)
		return
	}
	who, err := c.Whoami(ctx)
	if err != nil {
		d.fail("core", err)
		return
	}
	if mine := readVersion().Version; version.Version != mine {
		d.warn("core", "restart core with this skyport, or use the skyport of core", "core is of version %s, this is %s", version.Version, mine)
	} else {
		d.ok("core", "answers, version %s, knows you as %s", version.Version, who.Name)
	}
	if err := c.Ready(ctx); err != nil {
		d.fail("ready", err)
	} else {
		d.ok("ready", "core can work")
	}
	d.sites(ctx, c)
}

func (d *doctor) sites(ctx context.Context, c *client.Client) {
	sites, err := c.Sites(ctx)
	if err != nil {
		d.fail("sites", err)
		return
	}
	flavors, err := c.Flavors(ctx)
	if err != nil {
		d.fail("sites", err)
		return
	}
	if len(sites) == 0 {
		d.fail("sites", skyport.Errorf(skyport.CodeUnavailable, "there is no site where a job could run").
			WithHint("enable the local site in %s, or give the gate a site", d.layout.ConfigFile()))
		return
	}
	for _, s := range sites {
		n := len(atSite(flavors, s.Name, func(f skyport.Flavor) string { return f.Site }))
		if n == 0 {
			d.warn("sites", "see the log of the gate", "site %s offers no flavors", s.Name)
			continue
		}
		d.ok("sites", "%s: %s", s.Name, count(n, "flavor"))
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
