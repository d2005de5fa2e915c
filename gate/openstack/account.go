package openstack

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"go.yaml.in/yaml/v3"

	"github.com/openworkload/skyport"
)

// account is an entry of clouds.yaml, or what says the same.
// https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html
type account struct {
	Auth struct {
		AuthURL           string `yaml:"auth_url"`
		Token             string `yaml:"token"`
		Username          string `yaml:"username"`
		UserID            string `yaml:"user_id"`
		Password          string `yaml:"password"`
		UserDomainID      string `yaml:"user_domain_id"`
		UserDomainName    string `yaml:"user_domain_name"`
		ProjectID         string `yaml:"project_id"`
		ProjectName       string `yaml:"project_name"`
		ProjectDomainID   string `yaml:"project_domain_id"`
		ProjectDomainName string `yaml:"project_domain_name"`
		DomainID          string `yaml:"domain_id"`
		DomainName        string `yaml:"domain_name"`
		DefaultDomain     string `yaml:"default_domain"`
		CredentialID      string `yaml:"application_credential_id"`
		CredentialName    string `yaml:"application_credential_name"`
		CredentialSecret  string `yaml:"application_credential_secret"`
	} `yaml:"auth"`
	Profile   string `yaml:"profile"`
	Vendor    string `yaml:"cloud"`
	Region    string `yaml:"region_name"`
	Interface string `yaml:"interface"`
	CACert    string `yaml:"cacert"`
	Cert      string `yaml:"cert"`
	Key       string `yaml:"key"`
	Verify    *bool  `yaml:"verify"`

	// stamp differs when a file that this was read from has changed.
	stamp string
}

// account reads the credentials as they are now.
func (s *site) account() (account, error) {
	o := s.o
	var a account
	switch {
	case o.Cloud != "":
		if err := a.read(o.Cloud, o.CloudsFile); err != nil {
			return a, err
		}
	case o.AuthURL != "":
		auth := &a.Auth
		auth.AuthURL, auth.Username, auth.Password, auth.UserDomainName = o.AuthURL, o.Username, o.Password, o.UserDomain
		auth.ProjectName, auth.ProjectDomainName = o.Project, o.ProjectDomain
		auth.CredentialID, auth.CredentialSecret = o.ApplicationCredentialID, o.ApplicationCredentialSecret
	case os.Getenv("OS_CLOUD") != "":
		if err := a.read(os.Getenv("OS_CLOUD"), o.CloudsFile); err != nil {
			return a, err
		}
	default:
		a.environment()
	}
	a.CACert = cmp.Or(o.CAFile, a.CACert, os.Getenv("OS_CACERT"))
	a.Region = cmp.Or(o.Region, a.Region)
	auth := &a.Auth
	if auth.AuthURL == "" {
		return a, skyport.Errorf(skyport.CodeCredentials, "site %s: no credentials: neither an entry of clouds.yaml nor auth_url nor OS_AUTH_URL", o.Name).
			WithHint("name the entry of clouds.yaml as `cloud:`, or give auth_url and an application credential: " +
				"openstack application credential create skyport")
	}
	if auth.Token == "" && auth.Password == "" && auth.CredentialSecret == "" {
		return a, skyport.Errorf(skyport.CodeCredentials, "site %s: no password, application credential or token for %s", o.Name, auth.AuthURL).
			WithHint("openstack application credential create skyport, and put its id and secret into clouds.yaml")
	}
	for _, file := range []string{a.CACert, a.Cert, a.Key} {
		if file != "" {
			a.stamp += stampOf(file)
		}
	}
	return a, nil
}

// environment reads the variables of an openrc file.
func (a *account) environment() {
	a.Region, a.Interface = os.Getenv("OS_REGION_NAME"), os.Getenv("OS_INTERFACE")
	auth := &a.Auth
	for name, field := range map[string]*string{
		"OS_AUTH_URL": &auth.AuthURL, "OS_TOKEN": &auth.Token, "OS_USERNAME": &auth.Username, "OS_USER_ID": &auth.UserID,
		"OS_PASSWORD": &auth.Password, "OS_USER_DOMAIN_ID": &auth.UserDomainID, "OS_USER_DOMAIN_NAME": &auth.UserDomainName,
		"OS_PROJECT_ID": &auth.ProjectID, "OS_PROJECT_NAME": &auth.ProjectName, "OS_PROJECT_DOMAIN_ID": &auth.ProjectDomainID,
		"OS_PROJECT_DOMAIN_NAME": &auth.ProjectDomainName, "OS_DOMAIN_ID": &auth.DomainID, "OS_DOMAIN_NAME": &auth.DomainName,
		"OS_DEFAULT_DOMAIN": &auth.DefaultDomain, "OS_APPLICATION_CREDENTIAL_ID": &auth.CredentialID,
		"OS_APPLICATION_CREDENTIAL_NAME": &auth.CredentialName, "OS_APPLICATION_CREDENTIAL_SECRET": &auth.CredentialSecret,
	} {
		*field = os.Getenv(name)
	}
}

// read reads an entry of clouds.yaml, and over it what secure.yaml beside it says.
func (a *account) read(name, file string) error {
	places := []string{file}
	if file == "" {
		places = cloudsFiles()
	}
	for _, place := range places {
		text, err := readSmall(place)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return skyport.Errorf(skyport.CodeCredentials, "cloud %s: %w", name, err)
		}
		var clouds map[string]yaml.Node
		found, err := entry(text, name, &clouds)
		if err != nil {
			return skyport.Errorf(skyport.CodeCredentials, "cloud %s: %s: %w", name, place, err)
		}
		if found == nil {
			return skyport.Errorf(skyport.CodeCredentials, "cloud %s is not in %s, which has %s", name, place, keys(clouds)).
				WithHint("name one of them as `cloud:`")
		}
		if err := found.Decode(a); err != nil {
			return skyport.Errorf(skyport.CodeCredentials, "cloud %s of %s: %w", name, place, err)
		}
		secure := filepath.Join(filepath.Dir(place), "secure.yaml")
		a.stamp = stampOf(place) + stampOf(secure)
		if text, err = readSmall(secure); err == nil {
			if found, err = entry(text, name, nil); err == nil && found != nil {
				err = found.Decode(a)
			}
			if err != nil {
				return skyport.Errorf(skyport.CodeCredentials, "cloud %s of %s: %w", name, secure, err)
			}
		}
		if a.Auth.AuthURL == "" && cmp.Or(a.Profile, a.Vendor) != "" {
			return skyport.Errorf(skyport.CodeCredentials, "cloud %s of %s has no auth_url but profile %s, which is not known here",
				name, place, cmp.Or(a.Profile, a.Vendor)).WithHint("write auth_url into the entry")
		}
		return nil
	}
	return skyport.Errorf(skyport.CodeCredentials, "cloud %s: no file of clouds at %s", name, strings.Join(places, ", ")).
		WithHint("download clouds.yaml from the cloud's web page (Horizon: API Access) and put it there")
}

// entry finds a cloud in the text of clouds.yaml.
func entry(text []byte, name string, all *map[string]yaml.Node) (*yaml.Node, error) {
	var file struct {
		Clouds map[string]yaml.Node `yaml:"clouds"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("no YAML: %w", err)
	}
	if all != nil {
		*all = file.Clouds
	}
	node, ok := file.Clouds[name]
	if !ok {
		return nil, nil
	}
	return &node, nil
}

func keys(m map[string]yaml.Node) string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return cmp.Or(strings.Join(names, ", "), "none")
}

// cloudsFiles are the places where clouds.yaml may be.
func cloudsFiles() []string {
	if file := os.Getenv("OS_CLIENT_CONFIG_FILE"); file != "" {
		return []string{file}
	}
	places := []string{"clouds.yaml"}
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		places = append(places, filepath.Join(dir, "openstack", "clouds.yaml"))
	} else if home, err := os.UserHomeDir(); err == nil {
		places = append(places, filepath.Join(home, ".config", "openstack", "clouds.yaml"))
	}
	return append(places, "/etc/openstack/clouds.yaml")
}

func readSmall(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	return text, nil
}

func stampOf(file string) string {
	info, err := os.Stat(file)
	if err != nil {
		return file + " none;"
	}
	return fmt.Sprintf("%s %d %d;", file, info.Size(), info.ModTime().UnixNano())
}

// options says the account as gophercloud wants it.
func (a *account) options() gophercloud.AuthOptions {
	auth := a.Auth
	o := gophercloud.AuthOptions{
		IdentityEndpoint: auth.AuthURL, TokenID: auth.Token, AllowReauth: auth.Token == "",
		Username: auth.Username, UserID: auth.UserID, Password: auth.Password,
		ApplicationCredentialID: auth.CredentialID, ApplicationCredentialName: auth.CredentialName,
		ApplicationCredentialSecret: auth.CredentialSecret,
	}
	if auth.UserID == "" && auth.CredentialID == "" && auth.Token == "" {
		o.DomainID = cmp.Or(auth.UserDomainID, auth.DomainID)
		if o.DomainID == "" {
			if o.DomainName = cmp.Or(auth.UserDomainName, auth.DomainName); o.DomainName == "" {
				o.DomainID = cmp.Or(auth.DefaultDomain, "default")
			}
		}
	}
	if auth.CredentialSecret != "" {
		return o // has its project in itself
	}
	switch {
	case auth.ProjectID != "":
		o.Scope = &gophercloud.AuthScope{ProjectID: auth.ProjectID}
	case auth.ProjectName != "":
		o.Scope = &gophercloud.AuthScope{ProjectName: auth.ProjectName, DomainID: cmp.Or(auth.ProjectDomainID, auth.DomainID)}
		if o.Scope.DomainID == "" {
			if o.Scope.DomainName = cmp.Or(auth.ProjectDomainName, auth.DomainName); o.Scope.DomainName == "" {
				o.Scope.DomainID = cmp.Or(auth.DefaultDomain, "default")
			}
		}
	}
	return o
}
