package admission

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/schedule"
	"github.com/openworkload/skyport/jobscript"
)

// Catalog is what requests are held against.
type Catalog interface {
	Sites() []skyport.Site
	Flavors() []skyport.Flavor
	Images() []skyport.Image
	Accounts() []skyport.Account
}

// Submission is what a terminal sent.
type Submission struct {
	Script     []byte
	Directives []skyport.Directive
	Inputs     []skyport.StagedInput
	// Staged says whether core has a staged input completely.
	Staged func(manifest string) bool
	// Afford says why an account may start no further job; nil: all may.
	Afford func(account string) error
	// ReadPaths allows inputs to be paths of this machine: the caller is the
	// person as whom core runs.
	ReadPaths bool
}

// Check returns the request that the submission makes, complete and checked.
// Errors carry a [skyport.Code]; those of the script are jobscript.Errors.
func Check(caller skyport.User, s Submission, catalog Catalog) (skyport.Request, error) {
	request, err := jobscript.Parse(s.Script, jobscript.Options{Overrides: s.Directives})
	if err != nil {
		return request, err
	}
	account, err := accountOf(caller, request.Account, catalog.Accounts())
	if err != nil {
		return request, err
	}
	request.Account = account.Name
	if s.Afford != nil {
		if err := s.Afford(account.Name); err != nil {
			return request, err
		}
	}
	if err := checkNames(&request, catalog); err != nil {
		return request, err
	}
	// With nothing known about sites yet, placing is judged by the scheduler.
	if len(catalog.Sites()) > 0 {
		if _, err := schedule.Offers(&request, account.Name, catalog.Accounts(), catalog.Sites(), catalog.Flavors()); err != nil {
			return request, err
		}
	}
	return request, checkInputs(&request, s)
}

// accountOf finds the account that is named, or the caller's first.
func accountOf(caller skyport.User, name string, accounts []skyport.Account) (skyport.Account, error) {
	var mine []string
	for _, a := range accounts {
		if !mayspend(caller, &a) {
			continue
		}
		if name == "" || a.Name == name {
			return a, nil
		}
		mine = append(mine, a.Name)
	}
	if name == "" || len(mine) == 0 {
		return skyport.Account{}, skyport.Errorf(skyport.CodeUnknownAccount, "user %s belongs to no account", caller.Name).
			WithHint("the operator lists users under accounts in skyport.yaml")
	}
	return skyport.Account{}, skyport.Errorf(skyport.CodeUnknownAccount, "there is no account %q for user %s", name, caller.Name).
		WithHint("yours: %s", strings.Join(mine, ", "))
}

func mayspend(caller skyport.User, a *skyport.Account) bool {
	return slices.ContainsFunc(a.Users, func(u string) bool {
		return u == "*" || u == caller.Name || strings.EqualFold(u, string(caller.ID))
	})
}

// checkNames refuses sites, flavors and images that nobody offers.
func checkNames(r *skyport.Request, catalog Catalog) error {
	sites := catalog.Sites()
	if len(sites) == 0 {
		return nil
	}
	if r.Site != "" {
		if err := known(skyport.CodeUnknownSite, "site", r.Site, names(sites, func(s skyport.Site) (string, bool) { return s.Name, true })); err != nil {
			return err
		}
	}
	here := func(site string) bool { return r.Site == "" || r.Site == site }
	if r.Flavor != "" {
		list := names(catalog.Flavors(), func(f skyport.Flavor) (string, bool) { return f.Name, here(f.Site) })
		if err := known(skyport.CodeUnknownFlavor, "flavor", r.Flavor, list); err != nil {
			return err
		}
	}
	if r.Storage != "" {
		var list []string
		for _, s := range sites {
			if here(s.Name) {
				list = append(list, s.Storages...)
			}
		}
		slices.Sort(list)
		if err := known(skyport.CodeUnsupported, "storage", r.Storage, slices.Compact(list)); err != nil {
			return err
		}
	}
	if r.CloudImage != "" {
		list := names(catalog.Images(), func(i skyport.Image) (string, bool) { return i.Name, here(i.Site) && i.Kind == skyport.ImageCloud })
		if err := known(skyport.CodeUnknownImage, "cloud image", r.CloudImage, list); err != nil {
			return err
		}
	}
	return nil
}

func names[T any](list []T, name func(T) (string, bool)) (out []string) {
	for _, item := range list {
		if n, ok := name(item); ok && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func known(code skyport.Code, what, name string, list []string) error {
	if slices.Contains(list, name) {
		return nil
	}
	err := skyport.Errorf(code, "there is no %s %q", what, skyport.Abbreviate(name, 80))
	if len(list) == 0 {
		return err.WithHint("there are none at all")
	}
	const most = 12
	if len(list) > most {
		return err.WithHint("there are %d, such as %s", len(list), strings.Join(list[:most], ", "))
	}
	return err.WithHint("there are: %s", strings.Join(list, ", "))
}

// checkInputs matches the input-files of the script with what was staged, or
// with files of this machine where the caller may name them.
func checkInputs(r *skyport.Request, s Submission) error {
	for _, in := range s.Inputs {
		if !slices.ContainsFunc(r.InputFiles, func(path string) bool { return baseOf(path) == in.Name }) {
			return skyport.Errorf(skyport.CodeInvalid, "input %s was staged, but the job does not ask for it in input-files", skyport.Abbreviate(in.Name, 80))
		}
	}
	if len(s.Inputs) == 0 && s.ReadPaths {
		return checkPaths(r.InputFiles)
	}
	for _, path := range r.InputFiles {
		at := slices.IndexFunc(s.Inputs, func(in skyport.StagedInput) bool { return in.Name == baseOf(path) })
		if at < 0 {
			return skyport.Errorf(skyport.CodeInputNotStaged, "the input %s was not staged, and core must not read it for this user", path).
				WithHint("submit with a terminal that stages inputs, such as skyport submit")
		}
		if s.Staged == nil || !s.Staged(s.Inputs[at].Manifest) {
			return skyport.Errorf(skyport.CodeInputNotStaged, "the input %s is not completely staged", path).
				WithHint("push it to /v1/staging and submit again")
		}
	}
	return nil
}

// baseOf is the name under which an input lands in the work directory.
func baseOf(path string) string { return filepath.Base(filepath.Clean(path)) }

// checkPaths makes sure, as early as it can be known, that the inputs can be read.
func checkPaths(paths []string) error {
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			return skyport.Errorf(skyport.CodeInputUnreadable, "the input %s is a relative path, and core does not know where from", path).
				WithHint("name it from / on, or submit with skyport submit")
		}
		// Without O_NONBLOCK a pipe would keep us waiting for its writer.
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			_, err = f.Stat()
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return skyport.Errorf(skyport.CodeInputUnreadable, "the input cannot be read: %w", err)
		}
	}
	return nil
}
