package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/pki"
)

// Options say what Setup shall make. The zero value asks for all defaults.
type Options struct {
	Dir        string   // of the spool; see [Default]
	Home       string   // home directory that gets .swm/cert.pem and key.pem; default the user's own
	User       string   // name of the first user; default the login name
	Names      []string // further host names and addresses that core is reached by
	CoreListen string   // address of core in a new configuration; default :8443
	GateListen string   // address of the gate in a new configuration; default 127.0.0.1:8444
}

// Report tells what Setup found and made.
type Report struct {
	Spool    string         `json:"spool"`
	User     string         `json:"user"`
	UserID   skyport.UserID `json:"user_id"`
	Hosts    []string       `json:"hosts" doc:"Names and addresses in core's certificate"`
	CoreURL  string         `json:"core_url"`
	Made     []string       `json:"made" doc:"Files that were made, in order"`
	Warnings []string       `json:"warnings" doc:"What was left as it is and may not be as it should"`
}

// Setup makes what is missing of the spool and of the user's ~/.swm, and
// changes nothing that exists. A run that was interrupted is completed by the
// next one. Two at a time exclude each other.
func Setup(ctx context.Context, opts Options) (Report, error) {
	if err := opts.complete(); err != nil {
		return Report{}, err
	}
	s := &setup{Options: opts, layout: Layout{opts.Dir}}
	s.report = Report{Spool: opts.Dir, User: opts.User, Made: []string{}, Warnings: []string{}}
	if err := s.checkPlace(); err != nil {
		return s.report, err
	}
	if err := s.makeDirs(); err != nil {
		return s.report, err
	}
	lock, err := s.layout.Lock("setup")
	if err != nil {
		return s.report, err
	}
	steps := []func(context.Context) error{
		s.removeTemps, s.makeOwner, s.makeConfig, s.makeCAs, s.makeServers, s.makeUser, s.makeHome,
		// The version comes last: before it, there is no spool for Open.
		s.makeVersion,
	}
	for _, step := range steps {
		if err = ctx.Err(); err == nil {
			err = step(ctx)
		}
		if err != nil {
			break
		}
	}
	if err := errors.Join(err, lock.Close()); err != nil {
		return s.report, fmt.Errorf("set up the spool %s: %w", opts.Dir, err)
	}
	return s.report, nil
}

// complete fills in the defaults and refuses what cannot be.
func (o *Options) complete() (err error) {
	if o.Dir, err = Default(o.Dir); err != nil {
		return err
	}
	if o.Home == "" {
		if o.Home, err = os.UserHomeDir(); err != nil {
			return fmt.Errorf("find the home directory: %w", err)
		}
	}
	if o.User == "" {
		o.User = loginName()
	}
	if err := CheckUserName(o.User); err != nil {
		return err
	}
	defaults := Defaults()
	if o.CoreListen == "" {
		o.CoreListen = defaults.Core.Listen
	}
	if o.GateListen == "" {
		o.GateListen = defaults.Gate.Listen
	}
	for _, listen := range []string{o.CoreListen, o.GateListen} {
		if err := CheckListen(listen); err != nil {
			return skyport.Errorf(skyport.CodeInvalid, "%w", err)
		}
	}
	return CheckHosts(o.Names)
}

func loginName() string {
	if me, err := user.Current(); err == nil && me.Username != "" {
		return me.Username
	}
	return "user"
}

// setup is one run.
type setup struct {
	Options
	layout Layout
	life   time.Duration // of the leaves
	report Report
}

func (s *setup) made(paths ...string) { s.report.Made = append(s.report.Made, paths...) }

func (s *setup) warn(format string, args ...any) {
	s.report.Warnings = append(s.report.Warnings, fmt.Sprintf(format, args...))
}

// makeFile makes a file that is missing, for its owner only.
func (s *setup) makeFile(path string, content []byte) error {
	err := pki.WriteNew(path, content, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		s.made(path)
	}
	return err
}

// checkPlace refuses, before anything is touched, a spool of a newer version
// and a directory that is full of something else.
func (s *setup) checkPlace() error {
	if exists(s.layout.VersionFile()) {
		return checkVersion(s.layout)
	}
	entries, err := os.ReadDir(s.layout.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set up the spool: %w", err)
	}
	ours := func(e fs.DirEntry) bool {
		path := s.layout.path(e.Name())
		return path == s.layout.OwnerFile() || path == s.layout.ConfigFile() || slices.Contains(s.layout.dirs(), path)
	}
	foreign := func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".") && e.Name() != "lost+found" }
	if slices.ContainsFunc(entries, foreign) && !slices.ContainsFunc(entries, ours) {
		return skyport.Errorf(skyport.CodeConflict, "the directory %s holds other things and is no spool", s.layout.Dir).
			WithHint("name a directory that is empty or does not exist, with --spool or SWM_SPOOL")
	}
	return nil
}

func (s *setup) makeDirs() error {
	// Parents of the spool, such as ~/.swm, are as private as the spool.
	if err := os.MkdirAll(s.layout.Dir, 0o700); err != nil {
		return fmt.Errorf("set up the spool: %w", err)
	}
	for _, dir := range s.layout.dirs() {
		if err := s.makeDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("set up the spool: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("set up the spool: %w", err)
	}
	if !info.IsDir() {
		return skyport.Errorf(skyport.CodeConflict, "set up the spool: %s is not a directory", dir)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		s.warn("others may enter %s (mode %#o): chmod 700 %s", dir, mode, dir)
	}
	return nil
}

// removeTemps removes what an interrupted run was just writing. The lock is
// held, so nobody is writing it now.
func (s *setup) removeTemps(context.Context) error {
	dirs := s.layout.dirs()
	users, err := os.ReadDir(s.layout.Users())
	if err != nil {
		return fmt.Errorf("look for users: %w", err)
	}
	for _, u := range users {
		dirs = append(dirs, filepath.Join(s.layout.Users(), u.Name()))
	}
	for _, dir := range append(dirs, filepath.Join(s.Home, ".swm")) {
		temps, err := filepath.Glob(filepath.Join(escapeGlob(dir), pki.TempPrefix+"*"))
		if err != nil {
			return fmt.Errorf("look for unfinished files: %w", err)
		}
		for _, temp := range temps {
			if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove an unfinished file: %w", err)
			}
		}
	}
	return nil
}

func (s *setup) makeOwner(context.Context) error {
	return s.makeFile(s.layout.OwnerFile(), []byte(skyport.NewUserID()+"\n"))
}

func (s *setup) makeConfig(context.Context) error {
	path := s.layout.ConfigFile()
	if err := s.makeFile(path, configText(s.CoreListen, s.GateListen)); err != nil {
		return err
	}
	config, err := LoadConfig(path)
	if err != nil {
		s.warn("%v", err)
		config = Defaults()
	}
	s.life = config.CertificateLife
	defaults := Defaults()
	for _, setting := range []struct{ key, asked, usual, is string }{
		{"core.listen", s.CoreListen, defaults.Core.Listen, config.Core.Listen},
		{"gate.listen", s.GateListen, defaults.Gate.Listen, config.Gate.Listen},
	} {
		if setting.asked != setting.is && setting.asked != setting.usual {
			s.warn("%s stays %q: change it to %q in %s if you want that", setting.key, setting.is, setting.asked, path)
		}
	}
	s.report.CoreURL = URLOf(config.Core.Listen)
	return nil
}

func (s *setup) makeCAs(context.Context) error {
	grid, cluster, chain := s.layout.GridCA(), s.layout.ClusterCA(), s.layout.CAChain()
	if exists(cluster.Cert) && !exists(grid.Cert) && !exists(grid.Key) {
		// A new grid CA would not fit the cluster CA that is there.
		return s.restoreGrid()
	}
	for _, step := range []func() ([]string, error){
		func() ([]string, error) { return pki.EnsureGrid(grid) },
		func() ([]string, error) { return pki.EnsureCluster(cluster, grid) },
		func() ([]string, error) { return pki.EnsureChain(chain, cluster, grid) },
	} {
		made, err := step()
		s.made(made...)
		if err != nil {
			return err
		}
	}
	for _, pair := range []pki.Pair{grid, cluster} {
		if !exists(pair.Key) {
			s.warn("the key %s is not here: certificates below it cannot be made or renewed on this machine", pair.Key)
		} else if err := pki.CheckPair(pair); err != nil {
			return err
		}
	}
	return nil
}

// restoreGrid gets the certificate of a lost grid CA back from the chain.
func (s *setup) restoreGrid() error {
	chain, err := os.ReadFile(s.layout.CAChain())
	certs, bad := pki.ReadCertificates(s.layout.CAChain())
	if err := errors.Join(err, bad); err != nil || len(certs) < 2 {
		return skyport.Errorf(skyport.CodeConflict, "the grid CA is gone, but a cluster CA made by it is there: %s", s.layout.ClusterCA().Cert).
			WithHint("put %s back, or move the directory secure away to begin with new certificates", filepath.Dir(s.layout.GridCA().Cert))
	}
	const begin = "-----BEGIN CERTIFICATE-----"
	last := bytes.LastIndex(chain, []byte(begin))
	s.warn("the key %s is not here: the cluster CA cannot be renewed on this machine", s.layout.GridCA().Key)
	return s.makeFile(s.layout.GridCA().Cert, chain[last:])
}

func (s *setup) makeServers(ctx context.Context) error {
	forCore, forGate := slices.Concat(s.Names, ownHosts(s.CoreListen)), ownHosts(s.GateListen)
	var hosts []string // found out only when a certificate is to be made
	for _, server := range []struct {
		role pki.Role
		name string
		pair pki.Pair
		must []string // hosts that even an older certificate should have
	}{{pki.RoleCore, "node", s.layout.Node(), forCore}, {pki.RoleGate, "gate", s.layout.Gate(), forGate}} {
		if hosts == nil && !(exists(server.pair.Cert) && exists(server.pair.Key)) {
			hosts = Hosts(ctx, slices.Concat(forCore, forGate))
		}
		made, err := pki.EnsureLeaf(server.pair, s.layout.ClusterCA(), pki.Request{
			Role: server.role, Name: commonName(server.role), Hosts: hosts, Life: s.life,
		})
		s.made(made...)
		if err != nil {
			return err
		}
		certs, err := pki.ReadCertificates(server.pair.Cert)
		if err != nil {
			return err
		}
		has := pki.HostsOf(certs[0])
		if server.role == pki.RoleCore {
			s.report.Hosts = has
		}
		for _, name := range server.must {
			if !slices.ContainsFunc(has, func(host string) bool { return strings.EqualFold(host, name) }) {
				s.warn("the certificate of %s is not good for %s: run skyport cert %s --name %s", server.role, name, server.name, name)
			}
		}
	}
	return nil
}

func (s *setup) makeUser(context.Context) error {
	pair := s.layout.User(s.User)
	if err := s.makeDir(filepath.Dir(pair.Cert)); err != nil {
		return err
	}
	if err := s.recoverUser(pair); err != nil {
		return err
	}
	made, err := pki.EnsureLeaf(pair, s.layout.ClusterCA(), pki.Request{Role: pki.RoleUser, Name: s.User, Life: s.life})
	s.made(made...)
	if err != nil {
		return err
	}
	certs, err := pki.ReadCertificates(pair.Cert)
	if err != nil {
		return err
	}
	s.report.UserID, _, err = pki.UserOf(certs[0])
	return err
}

// recoverUser gets a lost file of the user's pair back from ~/.swm, so that the
// user stays who it was.
func (s *setup) recoverUser(pair pki.Pair) error {
	home := HomePair(s.Home)
	if pki.CheckPair(home) != nil || pki.IssuedBy(home.Cert, s.layout.CAChain()) != nil {
		return nil //nolint:nilerr // none that could be had back
	}
	certs, err := pki.ReadCertificates(home.Cert)
	if err != nil || certs[0].Subject.CommonName != s.User {
		return nil //nolint:nilerr // not the one that is looked for
	}
	if !exists(pair.Key) && (!exists(pair.Cert) || pki.CheckPair(pki.Pair{Cert: pair.Cert, Key: home.Key}) == nil) {
		if err := s.copyFile(home.Key, pair.Key); err != nil {
			return err
		}
	}
	if !exists(pair.Cert) && pki.CheckPair(pki.Pair{Cert: home.Cert, Key: pair.Key}) == nil {
		return s.copyFile(home.Cert, pair.Cert)
	}
	return nil
}

// makeHome gives the person who runs the setup the certificate, unless there
// is one of another installation.
func (s *setup) makeHome(context.Context) error {
	home, own := HomePair(s.Home), s.layout.User(s.User)
	if err := os.MkdirAll(filepath.Dir(home.Cert), 0o700); err != nil {
		return fmt.Errorf("make the user's directory: %w", err)
	}
	keyFits := !exists(home.Key) || pki.CheckPair(pki.Pair{Cert: own.Cert, Key: home.Key}) == nil
	certFits := !exists(home.Cert) || pki.CheckPair(pki.Pair{Cert: home.Cert, Key: own.Key}) == nil
	if !keyFits || !certFits {
		if pki.CheckPair(home) == nil && pki.IssuedBy(home.Cert, s.layout.CAChain()) == nil {
			return nil // another user of this spool: nothing to tell
		}
		s.warn("%s and key.pem belong to another installation and were left alone: to use this spool by default, "+
			"move both away and run skyport setup again, or name %s and key.pem to your terminal", home.Cert, own.Cert)
		return nil
	}
	if err := s.copyFile(own.Key, home.Key); err != nil {
		return err
	}
	return s.copyFile(own.Cert, home.Cert)
}

func (s *setup) copyFile(from, to string) error {
	if exists(to) {
		return nil
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return s.makeFile(to, content)
}

func (s *setup) makeVersion(context.Context) error {
	return s.makeFile(s.layout.VersionFile(), fmt.Appendf(nil, "%d\n", Version))
}

// hostsWait bounds how long the name service is asked for the full name.
const hostsWait = 2 * time.Second

// Hosts lists the names and addresses by which a server on this machine is
// reached: the host name, the full one if the name service knows it within two
// seconds, localhost, the loopback addresses, and the further ones.
func Hosts(ctx context.Context, further []string) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	add := func(name string) {
		name = strings.TrimSuffix(name, ".")
		known := slices.ContainsFunc(hosts, func(host string) bool { return strings.EqualFold(host, name) })
		if !known && (isIP(name) || pki.CheckHost(name) == nil) {
			hosts = append(hosts, name)
		}
	}
	if host, err := os.Hostname(); err == nil {
		add(host)
		for _, name := range fullNames(ctx, host) {
			add(name)
		}
	}
	for _, name := range further {
		add(name)
	}
	return hosts
}

func fullNames(ctx context.Context, host string) (full []string) {
	ctx, cancel := context.WithTimeout(ctx, hostsWait)
	defer cancel()
	var names []string
	if name, err := net.DefaultResolver.LookupCNAME(ctx, host); err == nil {
		names = append(names, name)
	}
	if addresses, err := net.DefaultResolver.LookupHost(ctx, host); err == nil {
		for _, address := range addresses[:min(len(addresses), 4)] {
			if found, err := net.DefaultResolver.LookupAddr(ctx, address); err == nil {
				names = append(names, found...)
			}
		}
	}
	// Only what is this host's: an address may be shared with other names.
	for _, name := range names {
		if len(name) > len(host) && strings.EqualFold(name[:len(host)+1], host+".") && strings.Trim(name, ".") != host {
			full = append(full, name)
		}
	}
	return full
}

// ownHosts are the hosts of listening addresses that name one.
func ownHosts(listens ...string) (hosts []string) {
	for _, listen := range listens {
		host, _, err := net.SplitHostPort(listen)
		if ip := net.ParseIP(host); err == nil && host != "" && (ip == nil || !ip.IsUnspecified()) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// shortHost is the host name up to the first dot, for names of certificates.
func shortHost() string {
	host, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	host, _, _ = strings.Cut(host, ".")
	return skyport.Abbreviate(host, 50)
}

func isIP(text string) bool { return net.ParseIP(text) != nil }

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
