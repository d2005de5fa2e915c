package openstack

import (
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// kindName is the kind of the sites of this package.
const kindName = "openstack"

// Options say which project of which cloud a site is, and what is made there.
// Only Name and credentials are needed.
type Options struct {
	Name   string // of the site
	Region string // in the catalogue of services; empty: the only one, or what clouds.yaml says

	DefaultFlavor, DefaultImage string
	Flavors                     []string          // patterns as in path.Match of the flavors that are offered; empty: all
	Images                      map[string]string // names of our own -> names or ids of the cloud's images
	Limits                      skyport.Limits
	SSHFrom                     []netip.Prefix // who may reach port 22; empty: the address of this machine, found out
	Disk                        skyport.Bytes  // system disk of nodes that boot from a volume; 0: 64 GiB. Others have the flavor's
	ExtraTags                   map[string]string
	Prices                      map[string]float64 // flavor -> price per hour
	Currency                    string             // of Prices
	Logger                      *slog.Logger
	HTTP                        *http.Client // nil: one with CAFile

	// Credentials: an entry of clouds.yaml; or these fields; or, when neither
	// is given, the OS_* environment.
	Cloud      string // entry of clouds.yaml; its file is read again when it changes
	CloudsFile string // empty: OS_CLIENT_CONFIG_FILE, ./clouds.yaml, ~/.config/openstack, /etc/openstack
	AuthURL    string
	Username, Password, UserDomain,
	Project, ProjectDomain string
	ApplicationCredentialID, ApplicationCredentialSecret string
	CAFile                                               string // certificates of the cloud's own authority

	Network          string         // provider network that nodes get addresses in; empty: each partition makes its own
	ExternalNetwork  string         // where floating addresses come from; empty: the only external one
	FloatingIP       *bool          // an address for main from outside; nil: yes, unless Network is set
	Nameservers      []netip.Addr   // for networks of our own; empty: what the cloud has
	Avoid            []netip.Prefix // networks of our own never overlap with these
	AvailabilityZone string
	BootVolume       bool   // nodes boot from a volume
	VolumeType       string // of boot volumes

	Poll time.Duration // between looks at what boots or goes away; 0: 1 s
}

// site is one project in one region.
type site struct {
	o   Options
	log *slog.Logger

	// turn holds the session, nil before the first login; one caller at a time
	// takes it out, so that who waits for a slow login can go when his time is over.
	turn chan *session
	seen struct { // what the catalogue said last
		sync.Mutex
		flavors map[string]flavor
		images  map[string]image
	}
	subnets struct { // ranges that creations under way have chosen
		sync.Mutex
		taken map[skyport.PartitionID]netip.Prefix
	}
}

// New makes a site. It checks what can be checked without asking the cloud;
// Check asks.
func New(o Options) (cloud.Cloud, error) {
	if o.Name == "" {
		return nil, skyport.Errorf(skyport.CodeInvalid, "an OpenStack site needs a name")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Poll <= 0 {
		o.Poll = time.Second
	}
	if o.Disk <= 0 {
		o.Disk = 64 << 30
	}
	s := &site{o: o, log: o.Logger.With("site", o.Name)}
	s.turn = make(chan *session, 1)
	s.turn <- nil
	s.subnets.taken = map[skyport.PartitionID]netip.Prefix{}
	if _, err := s.account(); err != nil {
		return nil, err
	}
	return s, nil
}

// Site describes the site.
func (s *site) Site() skyport.Site {
	site := skyport.Site{
		ID: gate.StableID(kindName, s.o.Name), Name: s.o.Name, Kind: kindName, Container: true,
		DefaultFlavor: s.o.DefaultFlavor, DefaultImage: s.o.DefaultImage, Limits: s.o.Limits,
		Region: s.o.Region, Currency: s.o.Currency,
	}
	a, err := s.account()
	if err != nil {
		return site // the file is being changed
	}
	if site.Region == "" {
		site.Region = a.Region
	}
	if at, err := url.Parse(a.Auth.AuthURL); err == nil {
		site.Server = at.Hostname()
		if port, err := strconv.Atoi(at.Port()); err == nil {
			site.Port = port
		}
	}
	return site
}

// Close ends what is kept open.
func (s *site) Close() error {
	if se := <-s.turn; se != nil {
		se.close()
	}
	s.turn <- nil
	return nil
}

// floating says whether main gets an address from outside.
func (s *site) floating() bool {
	if s.o.FloatingIP != nil {
		return *s.o.FloatingIP
	}
	return s.o.Network == ""
}
