package spool

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
)

// GateFile is what gate.yaml says: the clouds where the gate makes nodes. The
// zero value is no clouds.
type GateFile struct {
	Sites []CloudSite `json:"sites"`
	// Absent is true when there was no file to read.
	Absent bool `json:"-"`
}

// CloudSite is one site of a cloud. Fields that its kind does not have are
// empty; empty fields mean what the cloud's own defaults are.
type CloudSite struct {
	Kind   string `json:"kind"` // azure, openstack, aws
	Name   string `json:"name"`
	Region string `json:"region"`

	DefaultFlavor  string            `json:"default_flavor"`
	DefaultImage   string            `json:"default_image"`
	Flavors        []string          `json:"flavors"` // patterns as path.Match
	Images         map[string]string `json:"images"`  // the cloud's names by ours
	Limits         CloudLimits       `json:"limits"`
	SSHFrom        Networks          `json:"ssh_from"`        // empty: the gate's own address
	AddressService string            `json:"address_service"` // URL, or none; empty: [DefaultAddressService]
	Disk           CloudSize         `json:"disk"`
	Tags           map[string]string `json:"tags"`
	CAFile         string            `json:"ca_file"`
	Poll           CloudPause        `json:"poll"`
	Currency       string            `json:"currency"`
	Credentials    CloudCredentials  `json:"credentials"`

	Subscription string `json:"subscription"` // azure
	Endpoint     string `json:"endpoint"`     // azure, aws
	Authority    string `json:"authority"`    // azure
	PricesURL    string `json:"prices_url"`   // azure

	Registries []string       `json:"registries"` // azure: hosts that the site's login opens for jobs
	Storages   []CloudStorage `json:"storages"`   // azure: containers of blobs that jobs can mount

	Network          string             `json:"network"` // openstack, with all until Avoid
	ExternalNetwork  string             `json:"external_network"`
	AvailabilityZone string             `json:"availability_zone"`
	BootVolume       bool               `json:"boot_volume"`
	VolumeType       string             `json:"volume_type"`
	FloatingIP       *bool              `json:"floating_ip"`
	Prices           map[string]float64 `json:"prices"` // per node and hour, by flavor
	Nameservers      []netip.Addr       `json:"nameservers"`
	Avoid            Networks           `json:"avoid"`

	VPC         string `json:"vpc"` // aws
	Subnet      string `json:"subnet"`
	PriceRegion string `json:"price_region"`
}

// CloudStorage is a container of blobs under the name that jobs use.
type CloudStorage struct {
	Name      string `json:"name"`
	Account   string `json:"account"`
	Container string `json:"container"`
}

// CloudCredentials are those of one site. They never leave the gate.
type CloudCredentials struct {
	Tenant              string `json:"tenant"` // azure
	ClientID            string `json:"client_id"`
	ClientSecret        string `json:"client_secret"`
	SecretFile          string `json:"secret_file"`
	SecretExpires       string `json:"secret_expires"` // as [time.DateOnly]
	Certificate         string `json:"certificate"`
	CertificatePassword string `json:"certificate_password"`
	ManagedIdentity     string `json:"managed_identity"`
	CLI                 bool   `json:"cli"`

	Cloud                       string `json:"cloud"` // openstack
	CloudsFile                  string `json:"clouds_file"`
	AuthURL                     string `json:"auth_url"`
	Username                    string `json:"username"`
	Password                    string `json:"password"`
	UserDomain                  string `json:"user_domain"`
	Project                     string `json:"project"`
	ProjectDomain               string `json:"project_domain"`
	ApplicationCredentialID     string `json:"application_credential_id"`
	ApplicationCredentialSecret string `json:"application_credential_secret"`

	Profile         string `json:"profile"` // aws
	CredentialsFile string `json:"credentials_file"`
	AccessKey       string `json:"access_key"`
	SecretKey       string `json:"secret_key"`
	SessionToken    string `json:"session_token"`
}

// String says nothing: credentials are in no log.
func (CloudCredentials) String() string { return "(credentials)" }

// GoString says nothing, as String.
func (CloudCredentials) GoString() string { return "(credentials)" }

// CloudLimits bound what may be at the site at once; 0 is no limit.
type CloudLimits struct {
	Nodes  int       `json:"nodes"`
	CPUs   int       `json:"cpus"`
	Memory CloudSize `json:"memory"`
}

// CloudSize is a size that is spelled such as 64GiB.
type CloudSize skyport.Bytes

// UnmarshalJSON reads it.
func (s *CloudSize) UnmarshalJSON(text []byte) error {
	var word string
	if err := json.Unmarshal(text, &word); err != nil {
		return fmt.Errorf("read a size: %w", err)
	}
	size, err := ParseBytes(word)
	*s = CloudSize(size)
	return err
}

// CloudPause is a duration that is spelled such as 2s.
type CloudPause time.Duration

// UnmarshalJSON reads it.
func (p *CloudPause) UnmarshalJSON(text []byte) error {
	var word string
	if err := json.Unmarshal(text, &word); err != nil {
		return fmt.Errorf("read a duration: %w", err)
	}
	d, err := ParseDuration(word)
	*p = CloudPause(d)
	return err
}

// Networks is a list of networks, or the word auto, which is an empty list.
type Networks []netip.Prefix

// UnmarshalJSON reads it.
func (n *Networks) UnmarshalJSON(text []byte) error {
	*n = nil
	var words []string
	if json.Unmarshal(text, &words) != nil {
		return nil //nolint:nilerr // no list: the word auto
	}
	for _, word := range words {
		network, err := parseNetwork(word)
		if err != nil {
			return err
		}
		*n = append(*n, network)
	}
	return nil
}

// parseNetwork reads a network such as 203.0.113.0/24, or one address.
func parseNetwork(word string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(word); err == nil && address.Zone() == "" {
		return netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()), nil
	}
	network, err := netip.ParsePrefix(word)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network such as 203.0.113.0/24", skyport.Abbreviate(word, 60))
	}
	if network != network.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s is an address within a network: want %s, or %s alone", word, network.Masked(), network.Addr())
	}
	return network, nil
}

// DefaultAddressService answers with the caller's address as text.
const DefaultAddressService = "https://checkip.amazonaws.com"

// GateFile is where the clouds are described: ~/.swm/gate.yaml for the default
// spool, in the spool itself for others.
func (l Layout) GateFile() string {
	if home, err := os.UserHomeDir(); err == nil && l.Dir == filepath.Join(home, ".swm", "spool") {
		return filepath.Join(home, ".swm", "gate.yaml")
	}
	return l.path("gate.yaml")
}

// GateFile is where the clouds are described: where gate.config says, else
// where the layout has it.
func (s *Spool) GateFile() string {
	if path := s.Config.Gate.Config; path != "" {
		return inHome(path)
	}
	return s.Layout.GateFile()
}

// LoadGateFile reads gate.yaml; no file means no clouds, unless gate.config
// names it. The error lists every mistake with its line and column.
func (s *Spool) LoadGateFile() (GateFile, error) {
	path := s.GateFile()
	file, err := ReadGateFile(path, os.LookupEnv, s.Config.siteNames())
	if errors.Is(err, fs.ErrNotExist) && s.Config.Gate.Config == "" {
		return GateFile{Absent: true}, nil
	}
	return file, err
}

// siteNames are the names that clouds cannot have, with what has them.
func (c *Config) siteNames() map[string]string {
	names := map[string]string{"local": "this machine's own site"}
	if c.Docker.Enabled {
		names[c.Docker.Site] = "the Docker site"
	}
	for _, site := range c.SSH {
		names[site.Name] = "a site of hosts reached by SSH"
	}
	return names
}

// ReadGateFile reads a gate.yaml. It looks references to the environment up,
// and refuses names of sites that are taken; what takes them is the value. The
// error matches [fs.ErrNotExist] when there is no file.
func ReadGateFile(path string, lookup func(string) (string, bool), taken map[string]string) (GateFile, error) {
	content, mode, err := readGateFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return GateFile{}, skyport.Errorf(skyport.CodeNotFound, "there are no clouds: %w", err).
			WithHint("skyport gate example > %s gives a file to begin with", path)
	}
	if err != nil {
		return GateFile{}, err
	}
	file, secrets, err := parseGateFile(path, content, lookup, taken)
	if err != nil {
		return GateFile{}, err
	}
	if secrets != "" && mode&0o044 != 0 {
		return GateFile{}, skyport.Errorf(skyport.CodeInvalid, "%s holds a secret (%s) and can be read by others, mode %04o", path, secrets, mode).
			WithHint("chmod 600 %s", path)
	}
	return file, nil
}

// readGateFile reads at most what a configuration may have, of a regular file
// that nobody else can write.
func readGateFile(path string) ([]byte, fs.FileMode, error) {
	// Not blocking: somebody may have put a pipe there.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("read the clouds: %w", err)
	}
	defer func() { _ = file.Close() }() // read only
	info, err := file.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("read the clouds: %w", err)
	}
	mode := info.Mode().Perm()
	switch {
	case !info.Mode().IsRegular():
		return nil, 0, skyport.Errorf(skyport.CodeInvalid, "read the clouds: %s is no file", path)
	case mode&0o022 != 0:
		return nil, 0, skyport.Errorf(skyport.CodeInvalid, "%s can be changed by others, mode %04o: they could send the gate anywhere", path, mode).
			WithHint("chmod 600 %s", path)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
	if err != nil {
		return nil, 0, fmt.Errorf("read the clouds: %w", err)
	}
	if len(content) > maxConfig {
		return nil, 0, skyport.Errorf(skyport.CodeTooLarge, "%s has more than %s", path, skyport.Bytes(maxConfig))
	}
	return content, mode, nil
}

// parseGateFile says what the text says. secret is the path of a secret that
// stands in it, if one does.
func parseGateFile(path string, content []byte, lookup func(string) (string, bool), taken map[string]string) (file GateFile, secret string, err error) {
	tree, err := readTree(path, content, lookup)
	if err != nil {
		return GateFile{}, "", err
	}
	if wrong := tree.check(); len(wrong) > 0 {
		return GateFile{}, "", errGateFile(path, wrong)
	}
	text, err := json.Marshal(tree.value)
	if err != nil {
		return GateFile{}, "", fmt.Errorf("read %s: %w", path, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields() // the schema and this file would differ
	if err := decoder.Decode(&file); err != nil {
		return GateFile{}, "", fmt.Errorf("read %s: %w", path, err)
	}
	if wrong := file.problems(tree, taken); len(wrong) > 0 {
		return GateFile{}, "", errGateFile(path, wrong)
	}
	for i := range file.Sites {
		file.Sites[i].expandHome()
	}
	return file, tree.secret, nil
}

// problems are the mistakes that no schema can find.
func (f *GateFile) problems(tree *tree, taken map[string]string) (found []misfit) {
	seen := map[string]int{}
	for i, site := range f.Sites {
		at := []string{"sites", strconv.Itoa(i), "name"}
		if what, ok := taken[site.Name]; ok {
			found = append(found, tree.misfit(at, "the name %q is that of %s", site.Name, what))
		} else if first, twice := seen[site.Name]; twice {
			found = append(found, tree.misfit(at, "the name %q is there twice: sites.%d has it too", site.Name, first))
		} else {
			seen[site.Name] = i
		}
		for name := range site.Tags {
			if strings.HasPrefix(strings.ToLower(name), "skyport-") {
				path := []string{"sites", strconv.Itoa(i), "tags", name}
				found = append(found, tree.misfit(path, "tags that begin with skyport- are Sky Port's own"))
			}
		}
	}
	return found
}

func (c *CloudSite) expandHome() {
	own := &c.Credentials
	for _, path := range []*string{&c.CAFile, &own.SecretFile, &own.Certificate, &own.CloudsFile, &own.CredentialsFile} {
		*path = inHome(*path)
	}
}

// inHome resolves a path that begins with ~/.
func inHome(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	return path
}

// errGateFile joins the mistakes of a gate.yaml into one error, in the order of
// the file.
func errGateFile(path string, wrong []misfit) error {
	sortMisfits(wrong)
	var causes []error
	for i, m := range wrong {
		if i == mostMisfits {
			causes = append(causes, fmt.Errorf("and %d mistakes more", len(wrong)-i))
			break
		}
		causes = append(causes, errors.New(m.say(path)))
	}
	return skyport.Errorf(skyport.CodeInvalid, "the clouds cannot be used: %w", errors.Join(causes...)).
		WithHint("%s", cmp.Or(wrong[0].hint, fmt.Sprintf("mend %s, then try again; skyport gate example shows a whole one", path)))
}
