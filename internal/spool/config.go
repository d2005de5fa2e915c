package spool

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/pki"
)

// Config is what skyport.yaml says. The zero value is not usable; [LoadConfig]
// begins with the defaults. Each field's key is in its tag, its environment
// variable is SWM_ and the path of keys in capitals, as in SWM_CORE_LISTEN.
type Config struct {
	Core     CoreConfig      `koanf:"core"`
	Gate     GateConfig      `koanf:"gate"`
	Accounts []AccountConfig `koanf:"accounts"`
	Forward  ForwardConfig   `koanf:"forward"`
	Local    LocalConfig     `koanf:"local"`
	Docker   DockerConfig    `koanf:"docker"`
	SSH      []SSHSite       `koanf:"ssh"`
	Limits   LimitsConfig    `koanf:"limits"`
	Log      LogConfig       `koanf:"log"`
	// KeepAlive is how long a partition idles before it is removed, for jobs
	// that do not say.
	KeepAlive time.Duration `koanf:"keep_alive"`
	// CertificateLife is how long renewed certificates are valid.
	CertificateLife time.Duration `koanf:"certificate_life"`
}

// CoreConfig is about core.
type CoreConfig struct {
	// Listen is the address that terminals connect to; an empty host means all
	// addresses of this machine, port 0 a free one.
	Listen string `koanf:"listen"`
}

// GateConfig is about the gate.
type GateConfig struct {
	// Listen is the address that core connects to.
	Listen string `koanf:"listen"`
	// URL is where core finds the gate when that is not the one of this spool.
	URL string `koanf:"url"`
	// Config is the file of the gate's clouds; empty: as [Layout.GateFile] says.
	Config string `koanf:"config"`
}

// AccountConfig is who pays: who may spend, and where.
type AccountConfig struct {
	Name  string   `koanf:"name"`
	Users []string `koanf:"users"` // ids or names; "*" is everybody with a certificate
	Sites []string `koanf:"sites"` // names; "*" is every site
	// Budget is what it may spend; without an amount: as much as it likes.
	Budget BudgetConfig `koanf:"budget"`
}

// ForwardConfig is about the ports of jobs.
type ForwardConfig struct {
	// Address serves the in ports of jobs to other hosts: an address of this
	// machine, or a range such as 10.0.0.16/28 of which each job gets one. Empty:
	// only this machine reaches them.
	Address string `koanf:"address"`
}

// LocalConfig is about the local site: this machine.
type LocalConfig struct {
	Enabled bool          `koanf:"enabled"`
	CPUs    int           `koanf:"cpus"`   // most CPUs at once; 0 is all
	Memory  skyport.Bytes `koanf:"memory"` // most memory at once; 0 is all
	Nodes   int           `koanf:"nodes"`  // most nodes at once; 0 is no limit
	Price   float64       `koanf:"price"`  // per CPU and hour
}

// DockerConfig is about the Docker site: nodes that are containers of an engine.
type DockerConfig struct {
	Enabled bool   `koanf:"enabled"`
	Site    string `koanf:"site"`   // name of the site
	Host    string `koanf:"host"`   // the engine; empty: DOCKER_HOST or the usual socket
	Image   string `koanf:"image"`  // the node image, which the engine must have
	Engine  bool   `koanf:"engine"` // nodes have a container engine of their own
	Nodes   int    `koanf:"nodes"`  // most nodes at once; 0 is no limit
	// Flavors are the kinds of nodes; none: small, medium and large, made from
	// the engine's size.
	Flavors []DockerFlavor `koanf:"flavors"`
}

// DockerFlavor is a kind of node of the Docker site.
type DockerFlavor struct {
	Name   string        `koanf:"name"`
	CPUs   int           `koanf:"cpus"`
	Memory skyport.Bytes `koanf:"memory"`
	Price  float64       `koanf:"price"` // per node and hour
}

// LimitsConfig bounds what users can make core hold.
type LimitsConfig struct {
	Script skyport.Bytes `koanf:"script"`  // largest job script
	JobLog skyport.Bytes `koanf:"job_log"` // most that is kept of each log of a job
	// Retention is how long an ended job with its logs and results is kept; 0 is
	// for ever.
	Retention time.Duration `koanf:"retention"`
}

// LogConfig is about the daemons' own log.
type LogConfig struct {
	Level  string `koanf:"level"`  // debug, info, warn, error
	Format string `koanf:"format"` // text, json
}

// Defaults is the configuration of an empty skyport.yaml.
func Defaults() Config {
	return Config{
		Core:     CoreConfig{Listen: ":8443"},
		Gate:     GateConfig{Listen: "127.0.0.1:8444"},
		Accounts: []AccountConfig{{Name: "default", Users: []string{"*"}, Sites: []string{"*"}}},
		Local:    LocalConfig{Enabled: true},
		Docker:   DockerConfig{Site: "docker", Image: "skyport-node:dev", Engine: true, Nodes: 8, Flavors: []DockerFlavor{}},
		SSH:      []SSHSite{},
		Limits: LimitsConfig{
			Script:    16 << 20,
			JobLog:    1 << 30,
			Retention: 30 * 24 * time.Hour,
		},
		Log:             LogConfig{Level: "info", Format: "text"},
		CertificateLife: pki.LeafLife,
	}
}

// problem is a setting that cannot be, by its key.
type problem struct {
	key  string
	text string
}

// problems checks every setting and what they say together.
func (c *Config) problems() (found []problem) {
	refuse := func(key, format string, args ...any) {
		found = append(found, problem{key, fmt.Sprintf(format, args...)})
	}
	if err := CheckListen(c.Core.Listen); err != nil {
		refuse("core.listen", "%v", err)
	}
	if err := CheckListen(c.Gate.Listen); err != nil {
		refuse("gate.listen", "%v", err)
	}
	if c.Gate.URL != "" {
		u, err := url.Parse(c.Gate.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			refuse("gate.url", "%q is not an address such as https://gate.example.org:8444", c.Gate.URL)
		}
	}
	if path := c.Gate.Config; path != "" && !filepath.IsAbs(path) && !strings.HasPrefix(path, "~/") {
		refuse("gate.config", "%q is not an absolute path, nor one that begins with ~/", path)
	}
	names := map[string]bool{}
	if len(c.Accounts) == 0 {
		refuse("accounts", "there is no account: nobody could submit a job")
	}
	for i, account := range c.Accounts {
		key := fmt.Sprintf("accounts.%d", i)
		switch {
		case account.Name == "":
			refuse(key, "the account has no name")
		case names[account.Name]:
			refuse(key+".name", "the account %q is there twice", account.Name)
		}
		names[account.Name] = true
		if len(account.Users) == 0 {
			refuse(key, "the account %q has no users: list ids or names, or \"*\" for everybody", account.Name)
		}
		if len(account.Sites) == 0 {
			refuse(key, "the account %q has no sites: list names, or \"*\" for all", account.Name)
		}
		account.Budget.check(key+".budget", refuse)
	}
	if err := checkForward(c.Forward.Address); err != nil {
		refuse("forward.address", "%v", err)
	}
	atLeast(refuse, "local.cpus", c.Local.CPUs, 0)
	atLeast(refuse, "local.memory", c.Local.Memory, 0)
	atLeast(refuse, "local.nodes", c.Local.Nodes, 0)
	atLeast(refuse, "local.price", c.Local.Price, 0)
	c.Docker.check(refuse)
	checkSSH(c.SSH, refuse)
	atLeast(refuse, "limits.script", c.Limits.Script, 1<<10)
	atLeast(refuse, "limits.job_log", c.Limits.JobLog, 1<<10)
	atLeast(refuse, "limits.retention", c.Limits.Retention, 0)
	atLeast(refuse, "keep_alive", c.KeepAlive, 0)
	atLeast(refuse, "certificate_life", c.CertificateLife, time.Hour)
	oneOf(refuse, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(refuse, "log.format", c.Log.Format, "text", "json")
	return found
}

// CheckListen says what is wrong with an address to listen on, or nil.
func CheckListen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err == nil && host != "" && !isIP(host) {
		err = pki.CheckHost(host)
	}
	if err != nil {
		return fmt.Errorf("%q is not an address such as :8443 or 127.0.0.1:8443", address)
	}
	return nil
}

func checkForward(address string) error {
	if address == "" {
		return nil
	}
	if _, err := netip.ParseAddr(address); err == nil {
		return nil
	}
	if _, err := netip.ParsePrefix(address); err == nil {
		return nil
	}
	return fmt.Errorf("%q is neither an address such as 10.0.0.5 nor a range such as 10.0.0.16/28", address)
}

func atLeast[N int | float64 | skyport.Bytes | time.Duration](refuse func(string, string, ...any), key string, value, least N) {
	if value < least {
		refuse(key, "%v is too little: want %v or more", value, least)
	}
}

func oneOf(refuse func(string, string, ...any), key, value string, words ...string) {
	for _, word := range words {
		if value == word {
			return
		}
	}
	refuse(key, "%q is unknown: want one of %q", value, words)
}

// URLOf is the URL at which a server that listens on the address is reached
// from this machine.
func URLOf(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "https://" + listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip == netip.IPv4Unspecified() {
		host = "127.0.0.1"
	} else if err == nil && ip == netip.IPv6Unspecified() {
		host = "::1"
	}
	return "https://" + net.JoinHostPort(host, port)
}

// errConfig joins the problems of a configuration into one error.
func errConfig(path string, texts []string) error {
	causes := make([]error, len(texts))
	for i, text := range texts {
		causes[i] = errors.New(text)
	}
	return skyport.Errorf(skyport.CodeInvalid, "the configuration cannot be used: %w", errors.Join(causes...)).
		WithHint("mend %s (or the environment variable named), then try again", path)
}
