package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/aws"
	"github.com/openworkload/skyport/gate/azure"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/live"
	"github.com/openworkload/skyport/gate/openstack"
	"github.com/openworkload/skyport/internal/spool"
)

// cloudKinds are the kinds of clouds that gate.yaml may name.
var cloudKinds = []string{"azure", "openstack", "aws"}

// openClouds opens what gate.yaml names, and takes its changes in as it runs.
func openClouds(ctx context.Context, s *spool.Spool, log *slog.Logger) (*live.Sites, error) {
	dir := filepath.Join(s.GateState(), "clouds") // catalogues
	return live.Open(ctx, live.Options{
		Kinds: cloudKinds,
		Read:  func() ([]live.Site, error) { return readClouds(s) },
		Open: func(wanted live.Site) (func() (live.Provider, error), error) {
			c, ok := wanted.Config.(spool.CloudSite)
			if !ok {
				return nil, skyport.Errorf(skyport.CodeInternal, "open site %s: its configuration is a %T", wanted.Name, wanted.Config)
			}
			site, err := openCloud(c, log.With("kind", c.Kind, "site", c.Name))
			if err != nil {
				return nil, fmt.Errorf("open site %s: %w", c.Name, err)
			}
			return func() (live.Provider, error) { return provideCloud(c, site, dir, log) }, nil
		},
		Logger: log,
	})
}

// readClouds tells the sites that gate.yaml names now.
func readClouds(s *spool.Spool) ([]live.Site, error) {
	file, err := s.LoadGateFile()
	if err != nil {
		return nil, err
	}
	if file.Absent {
		return nil, live.ErrAbsent
	}
	sites := make([]live.Site, len(file.Sites))
	for i, c := range file.Sites {
		sites[i] = live.Site{Kind: c.Kind, Name: c.Name, Config: c}
	}
	return sites, nil
}

// openCloud opens what gate.yaml says of a site. No cloud is asked yet.
func openCloud(c spool.CloudSite, log *slog.Logger) (cloud.Cloud, error) {
	client, err := clientTrusting(c.CAFile)
	if err != nil {
		return nil, err
	}
	switch c.Kind {
	case "azure":
		return openAzure(c, client, log)
	case "openstack":
		return openOpenStack(c, log)
	case "aws":
		return openAWS(c, client, log)
	}
	return nil, skyport.Errorf(skyport.CodeUnsupported, "there are no sites of kind %q in this version", c.Kind)
}

func openAzure(c spool.CloudSite, client *http.Client, log *slog.Logger) (cloud.Cloud, error) {
	own := c.Credentials
	var expires time.Time
	if own.SecretExpires != "" {
		var err error
		if expires, err = time.Parse(time.DateOnly, own.SecretExpires); err != nil {
			return nil, fmt.Errorf("secret_expires: %w", err)
		}
	}
	storages := make([]azure.Storage, len(c.Storages))
	for i, st := range c.Storages {
		storages[i] = azure.Storage(st)
	}
	return azure.New(azure.Options{
		Name: c.Name, Region: c.Region, DefaultFlavor: c.DefaultFlavor, DefaultImage: c.DefaultImage, Flavors: c.Flavors, Images: c.Images,
		Limits: limitsOf(c), SSHFrom: c.SSHFrom, Disk: skyport.Bytes(c.Disk), ExtraTags: c.Tags, Currency: c.Currency,
		Subscription: c.Subscription, Tenant: own.Tenant, ClientID: own.ClientID, ClientSecret: own.ClientSecret, SecretFile: own.SecretFile,
		SecretExpires: expires, Certificate: own.Certificate, CertificatePassword: own.CertificatePassword,
		ManagedIdentity: own.ManagedIdentity, CLI: own.CLI, Registries: c.Registries, Storages: storages,
		Endpoint: c.Endpoint, Authority: c.Authority, PricesURL: c.PricesURL,
		HTTP: client, Logger: log, Poll: time.Duration(c.Poll),
	})
}

func openOpenStack(c spool.CloudSite, log *slog.Logger) (cloud.Cloud, error) {
	own := c.Credentials
	return openstack.New(openstack.Options{
		Name: c.Name, Region: c.Region, DefaultFlavor: c.DefaultFlavor, DefaultImage: c.DefaultImage, Flavors: c.Flavors, Images: c.Images,
		Limits: limitsOf(c), SSHFrom: c.SSHFrom, Disk: skyport.Bytes(c.Disk), ExtraTags: c.Tags, Prices: c.Prices, Currency: c.Currency,
		Cloud: own.Cloud, CloudsFile: own.CloudsFile, AuthURL: own.AuthURL, Username: own.Username, Password: own.Password,
		UserDomain: own.UserDomain, Project: own.Project, ProjectDomain: own.ProjectDomain,
		ApplicationCredentialID: own.ApplicationCredentialID, ApplicationCredentialSecret: own.ApplicationCredentialSecret, CAFile: c.CAFile,
		Network: c.Network, ExternalNetwork: c.ExternalNetwork, FloatingIP: c.FloatingIP, Nameservers: c.Nameservers, Avoid: c.Avoid,
		AvailabilityZone: c.AvailabilityZone, BootVolume: c.BootVolume, VolumeType: c.VolumeType,
		Logger: log, Poll: time.Duration(c.Poll),
	})
}

func openAWS(c spool.CloudSite, client *http.Client, log *slog.Logger) (cloud.Cloud, error) {
	own := c.Credentials
	return aws.New(aws.Options{
		Name: c.Name, Region: c.Region, DefaultFlavor: c.DefaultFlavor, DefaultImage: c.DefaultImage, Flavors: c.Flavors, Images: c.Images,
		Limits: limitsOf(c), SSHFrom: c.SSHFrom, Disk: skyport.Bytes(c.Disk), ExtraTags: c.Tags,
		Profile: own.Profile, AccessKey: own.AccessKey, SecretKey: own.SecretKey, SessionToken: own.SessionToken, CredentialsFile: own.CredentialsFile,
		VPC: c.VPC, Subnet: c.Subnet, Endpoint: c.Endpoint, PriceRegion: c.PriceRegion,
		HTTP: client, Logger: log, Poll: time.Duration(c.Poll),
	})
}

func limitsOf(c spool.CloudSite) skyport.Limits {
	return skyport.Limits{Nodes: c.Limits.Nodes, CPUs: c.Limits.CPUs, Memory: skyport.Bytes(c.Limits.Memory)}
}

// clientTrusting is a client that trusts the authorities of the file beside
// those of this machine; nil without a file: then the cloud's own will do.
func clientTrusting(path string) (*http.Client, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // nil is the default of all clouds
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeInvalid, "read ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, skyport.Errorf(skyport.CodeInvalid, "ca_file %s holds no certificate", path)
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		TLSClientConfig:       &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}}, nil
}

// provideCloud makes a provider of one site. The catalogue is kept in dir. It
// closes the cloud when it fails.
func provideCloud(c spool.CloudSite, site cloud.Cloud, dir string, log *slog.Logger) (live.Provider, error) {
	provider, err := cloud.New(cloud.Options{Kind: c.Kind, Clouds: []cloud.Cloud{site}, Dir: dir, Sources: sourcesOf(c, site), Logger: log})
	if err != nil {
		if closeErr := site.Close(); closeErr != nil {
			log.Warn("site that could not be opened not closed", "site", c.Name, "error", closeErr)
		}
		return nil, fmt.Errorf("open site %s: %w", c.Name, err)
	}
	return provider, nil
}

// sourcesOf is how the gate finds its own address as a site sees it: by a
// service of the internet, unless the cloud has routes only.
func sourcesOf(c spool.CloudSite, site cloud.Cloud) cloud.Sources {
	described := site.Site()
	route := ""
	if described.Server != "" {
		route = net.JoinHostPort(described.Server, strconv.Itoa(cmp.Or(described.Port, 443)))
	}
	// Private clouds see the address of this machine, public ones that of its network.
	if c.AddressService == "none" || c.AddressService == "" && c.Kind == "openstack" {
		return cloud.Sources{Fixed: c.SSHFrom, Route: route}
	}
	return cloud.Sources{Fixed: c.SSHFrom, Service: cmp.Or(c.AddressService, spool.DefaultAddressService)}
}
