package admission_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/admission"
)

// offer is a catalogue of two sites: near has no container engine.
type offer struct{ empty bool }

func (o offer) Sites() []skyport.Site {
	if o.empty {
		return nil
	}
	return []skyport.Site{{Name: "near", Limits: skyport.Limits{Nodes: 2}}, {Name: "far", Container: true, Storages: []string{"refdata"}}}
}

func (offer) Flavors() []skyport.Flavor {
	return []skyport.Flavor{
		{Name: "small", Site: "near", CPUs: 2, Memory: 4 << 30, Price: 1},
		{Name: "big", Site: "far", CPUs: 8, Memory: 32 << 30, Price: 5},
	}
}

func (offer) Images() []skyport.Image {
	return []skyport.Image{
		{Name: "ubuntu", Site: "near", Kind: skyport.ImageCloud},
		{Name: "suse", Site: "far", Kind: skyport.ImageCloud},
		{Name: "python", Site: "far", Kind: skyport.ImageContainer},
	}
}

func (offer) Accounts() []skyport.Account {
	return []skyport.Account{
		{Name: "others", Users: []string{"bob"}, Sites: []string{"*"}},
		{Name: "lab", Users: []string{"ada"}, Sites: []string{"*"}},
		{Name: "poor", Users: []string{"0190C2F0-6F5E-4C3A-9B1D-2F6F0B8F5A11"}, Sites: []string{"near"}},
	}
}

var ada = skyport.User{ID: "0190c2f0-6f5e-4c3a-9b1d-2f6f0b8f5a11", Name: "ada"}

func script(lines ...string) []byte {
	text := "#!/bin/sh\n"
	for _, l := range lines {
		text += "#SWM " + l + "\n"
	}
	return []byte(text + "true\n")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, nil, 0); err != nil {
		t.Fatal(err)
	}
	staged := []skyport.StagedInput{{Name: "data", Manifest: "whole"}}
	has := func(manifest string) bool { return manifest == "whole" }
	tests := map[string]struct {
		caller     skyport.User
		lines      []string
		submission admission.Submission
		code       skyport.Code
		text, hint string
		root       bool // may pass for root, who reads everything
	}{
		"a script that is wrong":             {lines: []string{"nodes many"}, code: skyport.CodeInvalidScript, text: "many"},
		"a user without an account":          {caller: skyport.User{ID: "x", Name: "eve"}, code: skyport.CodeUnknownAccount, text: "user eve belongs to no account", hint: "skyport.yaml"},
		"an account of a user without one":   {caller: skyport.User{ID: "x", Name: "eve"}, lines: []string{"account lab"}, code: skyport.CodeUnknownAccount, text: "belongs to no account"},
		"an account of others":               {lines: []string{"account others"}, code: skyport.CodeUnknownAccount, text: `no account "others" for user ada`, hint: "yours: lab, poor"},
		"an unknown site":                    {lines: []string{"site moon"}, code: skyport.CodeUnknownSite, text: `no site "moon"`, hint: "near, far"},
		"an unknown flavor":                  {lines: []string{"flavor huge"}, code: skyport.CodeUnknownFlavor, text: `no flavor "huge"`, hint: "small, big"},
		"a flavor of another site":           {lines: []string{"site near", "flavor big"}, code: skyport.CodeUnknownFlavor, text: `no flavor "big"`, hint: "there are: small"},
		"an unknown image":                   {lines: []string{"cloud-image beos"}, code: skyport.CodeUnknownImage, text: `no cloud image "beos"`, hint: "ubuntu, suse"},
		"a container image as cloud image":   {lines: []string{"cloud-image python"}, code: skyport.CodeUnknownImage, text: `no cloud image "python"`},
		"an image of another site":           {lines: []string{"site near", "cloud-image suse"}, code: skyport.CodeUnknownImage, hint: "there are: ubuntu"},
		"a storage":                          {lines: []string{"storage disk"}, code: skyport.CodeUnsupported, text: `no storage "disk"`, hint: "there are: refdata"},
		"a storage of another site":          {lines: []string{"site near", "storage refdata"}, code: skyport.CodeUnsupported, text: `no storage "refdata"`, hint: "none at all"},
		"a storage that the account may not": {lines: []string{"account poor", "storage refdata"}, code: skyport.CodeUnsatisfiable, text: `no site that account poor may use has a storage "refdata"`, hint: "site far has refdata"},
		"a site that the account may not":    {lines: []string{"account poor", "site far"}, code: skyport.CodeUnsatisfiable, text: "may not use any site named far"},
		"too many cpus":                      {lines: []string{"cpus 9"}, code: skyport.CodeUnsatisfiable, text: "no flavor has 9 CPUs", hint: "skyport flavors"},
		"too little money":                   {lines: []string{"cpus 8", "max-price 1"}, code: skyport.CodeUnsatisfiable, text: "costs 1 an hour or less", hint: "raise max-price"},
		"too many nodes":                     {lines: []string{"nodes 3", "site near"}, code: skyport.CodeUnsatisfiable, text: "2 nodes at most", hint: "fewer nodes"},
		"a container without an engine":      {lines: []string{"site near", "container-image python:3"}, code: skyport.CodeNoEngine, text: "no container engine", hint: "leave out container-image"},
		"an input that was not staged":       {lines: []string{"input-files /some/data"}, code: skyport.CodeInputNotStaged, text: "/some/data was not staged", hint: "skyport submit"},
		"an input staged by halves":          {lines: []string{"input-files /some/data"}, submission: admission.Submission{Inputs: []skyport.StagedInput{{Name: "data", Manifest: "half"}}, Staged: has}, code: skyport.CodeInputNotStaged, text: "not completely staged", hint: "/v1/staging"},
		"nobody knows what is staged":        {lines: []string{"input-files /some/data"}, submission: admission.Submission{Inputs: staged}, code: skyport.CodeInputNotStaged, text: "not completely staged"},
		"one of two inputs":                  {lines: []string{"input-files /some/data /some/more"}, submission: admission.Submission{Inputs: staged, Staged: has}, code: skyport.CodeInputNotStaged, text: "/some/more was not staged"},
		"an input that nobody asked for":     {submission: admission.Submission{Inputs: staged, Staged: has}, code: skyport.CodeInvalid, text: "data was staged"},
		"one input more than was asked for":  {lines: []string{"input-files /some/data"}, submission: admission.Submission{Inputs: append([]skyport.StagedInput{}, staged[0], skyport.StagedInput{Name: "more", Manifest: "whole"}), Staged: has}, code: skyport.CodeInvalid, text: "more was staged"},
		"a path that is not there":           {lines: []string{"input-files " + dir + "/absent"}, submission: admission.Submission{ReadPaths: true}, code: skyport.CodeInputUnreadable, text: "absent"},
		"a relative path":                    {lines: []string{"input-files data"}, submission: admission.Submission{ReadPaths: true}, code: skyport.CodeInputUnreadable, text: "relative", hint: "from / on"},
		"a path that cannot be read":         {lines: []string{"input-files " + secret}, submission: admission.Submission{ReadPaths: true}, code: skyport.CodeInputUnreadable, text: "permission denied", root: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.root && os.Geteuid() == 0 {
				t.Skip("root reads everything")
			}
			caller := test.caller
			if caller.Name == "" {
				caller = ada
			}
			s := test.submission
			s.Script = script(test.lines...)
			_, err := admission.Check(caller, s, offer{})
			if skyport.CodeOf(err) != test.code || err == nil {
				t.Fatalf("says %s: %v, want %s", skyport.CodeOf(err), err, test.code)
			}
			if !strings.Contains(err.Error(), test.text) || !strings.Contains(skyport.HintOf(err), test.hint) {
				t.Errorf("says %q (hint %q), want %q (hint %q)", err, skyport.HintOf(err), test.text, test.hint)
			}
		})
	}
}

func TestAdmissions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	staged := admission.Submission{
		Inputs: []skyport.StagedInput{{Name: "data", Manifest: "whole"}}, Staged: func(string) bool { return true },
	}
	tests := map[string]struct {
		lines      []string
		submission admission.Submission
		account    string
	}{
		"the first account of the caller": {account: "lab"},
		"an account by the caller's id":   {lines: []string{"account poor"}, account: "poor"},
		"a place that exists":             {lines: []string{"site far", "flavor big", "cloud-image suse", "container-image python:3"}, account: "lab"},
		"a staged input":                  {lines: []string{"input-files /some/data"}, submission: staged, account: "lab"},
		"a staged directory":              {lines: []string{"input-files /some/data/"}, submission: staged, account: "lab"},
		"files of this machine":           {lines: []string{"input-files " + file + " " + dir}, submission: admission.Submission{ReadPaths: true}, account: "lab"},
		"a pipe does not hold core up":    {lines: []string{"input-files " + pipe}, submission: admission.Submission{ReadPaths: true}, account: "lab"},
		"overridden by the terminal":      {lines: []string{"account others"}, submission: admission.Submission{Directives: []skyport.Directive{{Keyword: "account", Value: "lab"}}}, account: "lab"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := test.submission
			s.Script = script(test.lines...)
			r, err := admission.Check(ada, s, offer{})
			if err != nil || r.Account != test.account || r.Nodes != 1 {
				t.Errorf("account %q, %d nodes, %v (%s)", r.Account, r.Nodes, err, skyport.HintOf(err))
			}
		})
	}
}

// Before the gate has told anything, names are taken as they come: the
// scheduler holds the job until more is known.
func TestNothingIsKnownYet(t *testing.T) {
	t.Parallel()
	r, err := admission.Check(ada, admission.Submission{Script: script("site moon", "flavor huge", "cpus 999")}, offer{empty: true})
	if err != nil || r.Site != "moon" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAccountsThatCannotAfford(t *testing.T) {
	t.Parallel()
	spent := skyport.Errorf(skyport.CodeBudget, "the budget is used up")
	afford := func(account string) error {
		if account == "poor" {
			return spent
		}
		return nil
	}
	if r, err := admission.Check(ada, admission.Submission{Script: script("account lab"), Afford: afford}, offer{}); err != nil || r.Account != "lab" {
		t.Errorf("an account with money: %+v, %v", r, err)
	}
	if _, err := admission.Check(ada, admission.Submission{Script: script("account poor"), Afford: afford}, offer{}); skyport.CodeOf(err) != skyport.CodeBudget {
		t.Errorf("an account without: %v", err)
	}
	if _, err := admission.Check(ada, admission.Submission{Script: script("account others"), Afford: afford}, offer{}); skyport.CodeOf(err) != skyport.CodeUnknownAccount {
		t.Errorf("somebody else's account: %v", err)
	}
}
