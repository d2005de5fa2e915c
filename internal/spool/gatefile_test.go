package spool

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openworkload/skyport"
)

var gateVariables = map[string]string{"SECRET": "hunter2", "EMPTY": "", "ODD": "a: b\n- ${X}"}

func lookupGate(name string) (string, bool) {
	value, ok := gateVariables[name]
	return value, ok
}

func readGate(t *testing.T, text string) (GateFile, error) {
	t.Helper()
	file, _, err := parseGateFile("gate.yaml", []byte(text), lookupGate, map[string]string{"local": "this machine's own site", "lab": "a site of hosts reached by SSH"})
	return file, err
}

func TestGateFile(t *testing.T) {
	t.Parallel()
	got, err := readGate(t, `
sites:
  - kind: azure
    name: weu
    region: westeurope
    subscription: sub-1
    credentials: {tenant: t, client_id: c, client_secret: "${SECRET}", secret_expires: 2027-06-30}
    poll: 50ms
    default_flavor: Standard_D2s_v5
    default_image: ubuntu-24.04
    flavors: [Standard_D*s_v5]
    images: {ubuntu-24.04: "Canonical:ubuntu-24_04-lts:server:latest"}
    limits: {nodes: 3, cpus: 24, memory: 96GiB}
    ssh_from: [203.0.113.0/24, 198.51.100.7]
    disk: 64G
    tags: {cost-center: lab 7}
  - {kind: openstack, name: campus, ssh_from: auto, floating_ip: false, address_service: none, prices: {small: 1, big: 2.5}, currency: EUR,
     nameservers: [10.0.0.53], avoid: [10.20.0.0/16],
     credentials: {cloud: campus}, limits: }
  - {kind: aws, name: fra, region: eu-central-1, credentials: {access_key: "${ODD}", secret_key: "${SECRET}"}}
`)
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := GateFile{Sites: []CloudSite{
		{
			Kind: "azure", Name: "weu", Region: "westeurope", Subscription: "sub-1",
			Credentials:   CloudCredentials{Tenant: "t", ClientID: "c", ClientSecret: "hunter2", SecretExpires: "2027-06-30"},
			Poll:          CloudPause(50 * time.Millisecond),
			DefaultFlavor: "Standard_D2s_v5", DefaultImage: "ubuntu-24.04", Flavors: []string{"Standard_D*s_v5"},
			Images:  map[string]string{"ubuntu-24.04": "Canonical:ubuntu-24_04-lts:server:latest"},
			Limits:  CloudLimits{Nodes: 3, CPUs: 24, Memory: 96 << 30},
			SSHFrom: Networks{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("198.51.100.7/32")},
			Disk:    64 << 30, Tags: map[string]string{"cost-center": "lab 7"},
		},
		{
			Kind: "openstack", Name: "campus", FloatingIP: &no, AddressService: "none", Prices: map[string]float64{"small": 1, "big": 2.5}, Currency: "EUR",
			Credentials: CloudCredentials{Cloud: "campus"},
			Nameservers: []netip.Addr{netip.MustParseAddr("10.0.0.53")}, Avoid: Networks{netip.MustParsePrefix("10.20.0.0/16")},
		},
		{Kind: "aws", Name: "fra", Region: "eu-central-1", Credentials: CloudCredentials{AccessKey: "a: b\n- ${X}", SecretKey: "hunter2"}},
	}}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, text := range map[string]string{"nothing": "", "comment": "# no\n", "no sites": "sites:\n", "empty": "sites: []", "example": string(gateExample)} {
		if file, err := readGate(t, text); err != nil || len(file.Sites) != 0 {
			t.Errorf("%s: %v, %v", name, file, err)
		}
	}
}

// The example is right when the # before its lines are taken away, all of them.
func TestGateExample(t *testing.T) {
	t.Parallel()
	text := regexp.MustCompile(`(?m)^#(sites:|  )`).ReplaceAllString(string(gateExample), "$1")
	file, _, err := parseGateFile("gate.yaml", []byte(text), func(string) (string, bool) { return "secret", true }, nil)
	if err != nil || len(file.Sites) != 3 {
		t.Fatalf("%d sites, %v", len(file.Sites), err)
	}
	if file.Sites[0].Credentials.ClientSecret != "secret" {
		t.Error("the example's reference is not resolved")
	}
	// Every key of the schema is shown, but for what only tests and other clouds need.
	rare := []string{"endpoint", "authority", "prices_url", "poll", "price_region", "clouds_file", "credentials_file", "session_token", "certificate_password", "floating_ip"}
	for key := range allKeys() {
		if !slices.Contains(rare, key) && !strings.Contains(string(gateExample), key+":") {
			t.Errorf("the example does not show %s", key)
		}
	}
}

// allKeys are the keys that the schema knows.
func allKeys() map[string]bool {
	keys := map[string]bool{}
	for _, kind := range []string{"azure", "openstack", "aws"} {
		for _, part := range []string{kind, kind + "_credentials", "limits"} {
			for key := range propertiesOf("#/$defs/" + part) {
				keys[key] = true
			}
		}
	}
	return keys
}

// What the schema knows is what the types know, and all kinds know what all should.
func TestGateSchemaIsInStep(t *testing.T) {
	t.Parallel()
	fields := map[string]bool{}
	for _, shape := range []reflect.Type{reflect.TypeFor[CloudSite](), reflect.TypeFor[CloudCredentials](), reflect.TypeFor[CloudLimits]()} {
		for i := range shape.NumField() {
			fields[shape.Field(i).Tag.Get("json")] = true
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(allKeys()))); diff != "" {
		t.Errorf("(-types +schema):\n%s", diff)
	}
	for _, kind := range []string{"azure", "openstack", "aws"} {
		for _, key := range []string{
			"kind", "name", "region", "credentials", "default_flavor", "default_image", "flavors", "images", "limits", "ssh_from", "address_service", "disk", "tags", "ca_file", "poll",
		} {
			if propertiesOf("#/$defs/" + kind)[key] == nil {
				t.Errorf("the schema of %s does not know %s", kind, key)
			}
		}
	}
	want := []string{"application_credential_secret", "certificate_password", "client_secret", "password", "secret_key", "session_token"}
	if got := slices.Sorted(maps.Keys(secretKeys)); !slices.Equal(got, want) {
		t.Errorf("secret keys are %q", got)
	}
	if _, err := compiledSchema(); err != nil {
		t.Error(err)
	}
}

// TestMistakesInGateFiles compares what people read with golden files.
func TestMistakesInGateFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/gate/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = readGate(t, string(text))
			if err == nil {
				t.Fatal("nothing was found")
			}
			if skyport.CodeOf(err) != skyport.CodeInvalid {
				t.Errorf("the code is %s", skyport.CodeOf(err))
			}
			got := err.Error() + "\nhint: " + skyport.HintOf(err) + "\n"
			if strings.Contains(got, "hunter2") {
				t.Error("a secret is told")
			}
			golden := strings.TrimSuffix(path, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestGateFileModes(t *testing.T) {
	t.Parallel()
	plain := "sites: [{kind: aws, name: fra, region: eu-central-1}]\n"
	secret := "sites: [{kind: aws, name: fra, region: eu-central-1, credentials: {access_key: a, secret_key: hunter2}}]\n"
	named := strings.ReplaceAll(secret, "hunter2", `"${SECRET}"`)
	for _, test := range []struct {
		name string
		text string
		mode fs.FileMode
		want string // in the error; empty: none
	}{
		{"nothing secret", plain, 0o644, ""},
		{"secret", secret, 0o600, ""},
		{"read only", secret, 0o400, ""},
		{"secret and group", secret, 0o640, "holds a secret (sites.0.credentials.secret_key) and can be read by others, mode 0640"},
		{"secret and others", secret, 0o604, "can be read by others"},
		{"named", named, 0o644, ""},
		{"writable", plain, 0o664, "can be changed by others, mode 0664"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "gate.yaml")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			file, err := ReadGateFile(path, lookupGate, nil)
			switch {
			case test.want == "" && (err != nil || len(file.Sites) != 1):
				t.Errorf("%v, %v", file, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || skyport.HintOf(err) != "chmod 600 "+path):
				t.Errorf("got %v, hint %q", err, skyport.HintOf(err))
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("a secret is told")
			}
		})
	}
	t.Run("not there", func(t *testing.T) {
		t.Parallel()
		_, err := ReadGateFile(filepath.Join(t.TempDir(), "gate.yaml"), lookupGate, nil)
		if !errors.Is(err, fs.ErrNotExist) || skyport.HintOf(err) == "" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no file", func(t *testing.T) {
		t.Parallel()
		if _, err := ReadGateFile(t.TempDir(), lookupGate, nil); err == nil {
			t.Error("a directory was read")
		}
	})
	t.Run("too long", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "gate.yaml")
		if err := os.WriteFile(path, make([]byte, maxConfig+1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadGateFile(path, lookupGate, nil); skyport.CodeOf(err) != skyport.CodeTooLarge {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhereTheGateFileLies(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, test := range []struct{ dir, config, want string }{
		{filepath.Join(home, ".swm", "spool"), "", filepath.Join(home, ".swm", "gate.yaml")},
		{"/srv/spool", "", "/srv/spool/gate.yaml"},
		{"/srv/spool", "/etc/gate.yaml", "/etc/gate.yaml"},
		{"/srv/spool", "~/clouds.yaml", filepath.Join(home, "clouds.yaml")},
	} {
		s := &Spool{Layout: Layout{test.dir}}
		s.Config.Gate.Config = test.config
		if got := s.GateFile(); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
	s := &Spool{Layout: Layout{filepath.Join(home, "none")}}
	if file, err := s.LoadGateFile(); err != nil || len(file.Sites) != 0 {
		t.Errorf("no file: %v, %v", file, err)
	}
	s.Config.Gate.Config = "~/none.yaml"
	if _, err := s.LoadGateFile(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that was named is not there: %v", err)
	}
}

// FuzzGateFile looks for texts that bring the reader down, or that it takes
// though they are none.
func FuzzGateFile(f *testing.F) {
	files, err := filepath.Glob("testdata/gate/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add(gateExample)
	f.Add([]byte("sites: [{kind: aws, name: fra, region: eu-central-1, ssh_from: [10.0.0.0/8]}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, _, err := parseGateFile("gate.yaml", text, lookupGate, nil)
		if err != nil {
			if skyport.CodeOf(err) != skyport.CodeInvalid || !strings.Contains(err.Error(), "gate.yaml:") {
				t.Errorf("an error without a place: %v", err)
			}
			return
		}
		names := map[string]bool{}
		for _, site := range file.Sites {
			if !siteName.MatchString(site.Name) || names[site.Name] || !slices.Contains([]string{"azure", "openstack", "aws"}, site.Kind) {
				t.Errorf("a wrong site was taken: %+v", site)
			}
			names[site.Name] = true
		}
	})
}
