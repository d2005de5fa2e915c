package azure

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// soon is how long before its end an expiry is warned of.
const soon = 30 * 24 * time.Hour

// report collects what a check finds.
type report struct {
	s   *site
	all []gate.Finding
}

func (r *report) add(level gate.Level, subject, fix, text string, args ...any) {
	r.all = append(r.all, gate.Finding{Site: r.s.o.Name, Subject: subject, Level: level, Text: fmt.Sprintf(text, args...), Fix: fix})
}

// wrong adds an error, with the fix that is known, or its own hint.
func (r *report) wrong(level gate.Level, subject, fix string, err error) {
	if fix == "" {
		fix = skyport.HintOf(err)
	}
	r.add(level, subject, fix, "%s", err.Error())
}

// Check looks at what a first partition will need, in the order in which it would.
func (s *site) Check(ctx context.Context) ([]gate.Finding, error) {
	r := &report{s: s}
	if !s.checkLogin(ctx, r) || !s.checkSubscription(ctx, r) {
		return r.all, ctx.Err() //nolint:wrapcheck // the caller's own
	}
	s.checkPermissions(ctx, r)
	s.checkProviders(ctx, r)
	s.checkFlavor(ctx, r)
	s.checkImages(ctx, r)
	return r.all, ctx.Err() //nolint:wrapcheck // the caller's own
}

// assignee is who the rights must be given to, for commands.
func (s *site) assignee() string {
	if s.o.ClientID != "" {
		return s.o.ClientID
	}
	return "<object id of the identity>"
}

func (s *site) checkLogin(ctx context.Context, r *report) bool {
	_, err := s.login.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{s.audience + "/.default"}})
	if err != nil {
		fix := "az login"
		switch {
		case s.o.ClientID != "":
			fix = "az ad sp credential reset --id " + s.o.ClientID + " (a new secret; write it into the gate's configuration)"
		case s.o.ManagedIdentity != "":
			fix = "az vm identity assign -g <group> -n <machine that the gate runs on>"
		}
		r.wrong(gate.LevelFailure, "credentials", fix, s.explain(err, "log in to Azure"))
		return false
	}
	switch end := s.login.expiry(); {
	case end.IsZero():
		r.add(gate.LevelOK, "credentials", "", "Azure takes the login")
	case time.Until(end) < soon:
		r.add(gate.LevelWarning, "credentials", "az ad sp credential reset --id "+s.assignee()+" --append",
			"Azure takes the login, but it expires on %s", end.UTC().Format(time.RFC3339))
	default:
		r.add(gate.LevelOK, "credentials", "", "Azure takes the login until %s", end.UTC().Format(time.DateOnly))
	}
	return true
}

func (s *site) checkSubscription(ctx context.Context, r *report) bool {
	got, err := s.subscriptions.Get(ctx, s.o.Subscription, nil)
	if err != nil {
		r.wrong(gate.LevelFailure, "subscription", s.grant(), s.explain(err, "look at the subscription %s", s.o.Subscription))
		return false
	}
	if state := string(value(got.State)); state != "" && state != "Enabled" && state != "Warned" {
		r.add(gate.LevelFailure, "subscription", "az account show --subscription "+s.o.Subscription, "the subscription %q is %s", value(got.DisplayName), state)
		return false
	}
	r.add(gate.LevelOK, "subscription", "", "%s", value(got.DisplayName))
	return true
}

// grant is the command that gives all the rights that are needed.
func (s *site) grant() string {
	return "az role assignment create --assignee " + s.assignee() + " --role Contributor --scope /subscriptions/" + s.o.Subscription
}

// needed are the actions of the least role that suffices.
var needed = []string{
	"Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Resources/subscriptions/resourceGroups/write",
	"Microsoft.Resources/subscriptions/resourceGroups/delete", "Microsoft.Resources/subscriptions/resources/read",
	"Microsoft.Resources/deployments/read", "Microsoft.Resources/deployments/write", "Microsoft.Resources/deployments/cancel/action",
	"Microsoft.Resources/deployments/operations/read", "Microsoft.Resources/deployments/operationstatuses/read", "Microsoft.Resources/tags/write",
	"Microsoft.Compute/virtualMachines/read", "Microsoft.Compute/virtualMachines/write", "Microsoft.Compute/virtualMachines/delete",
	"Microsoft.Compute/disks/write", "Microsoft.Compute/disks/delete",
	"Microsoft.Compute/proximityPlacementGroups/write", "Microsoft.Compute/proximityPlacementGroups/delete",
	"Microsoft.Compute/skus/read", "Microsoft.Compute/locations/usages/read", "Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read",
	"Microsoft.Network/networkSecurityGroups/write", "Microsoft.Network/networkSecurityGroups/delete", "Microsoft.Network/networkSecurityGroups/join/action",
	"Microsoft.Network/networkSecurityGroups/securityRules/write", "Microsoft.Network/virtualNetworks/write", "Microsoft.Network/virtualNetworks/delete",
	"Microsoft.Network/virtualNetworks/subnets/join/action", "Microsoft.Network/publicIPAddresses/read", "Microsoft.Network/publicIPAddresses/write",
	"Microsoft.Network/publicIPAddresses/delete", "Microsoft.Network/publicIPAddresses/join/action", "Microsoft.Network/networkInterfaces/read",
	"Microsoft.Network/networkInterfaces/write", "Microsoft.Network/networkInterfaces/delete", "Microsoft.Network/networkInterfaces/join/action",
	"Microsoft.Network/locations/usages/read", "Microsoft.DevTestLab/schedules/read",
	"Microsoft.DevTestLab/schedules/write", "Microsoft.DevTestLab/schedules/delete",
}

// permission is an entry of what Azure lets us do. See
// https://learn.microsoft.com/rest/api/authorization/permissions
type permission struct {
	Actions    []string `json:"actions"`
	NotActions []string `json:"notActions"`
}

func (p *permission) allows(action string) bool {
	return matchesAny(p.Actions, action) && !matchesAny(p.NotActions, action)
}

func matchesAny(patterns []string, action string) bool {
	for _, pattern := range patterns {
		expression := "(?i)^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$"
		if matched, err := regexp.MatchString(expression, action); err == nil && matched {
			return true
		}
	}
	return false
}

func (s *site) checkPermissions(ctx context.Context, r *report) {
	var all struct {
		Value []permission `json:"value"`
	}
	path := "/subscriptions/" + s.o.Subscription + "/providers/Microsoft.Authorization/permissions"
	if err := s.fetch(ctx, path, "2022-04-01", &all); err != nil {
		r.wrong(gate.LevelWarning, "permissions", s.grant(), s.explain(err, "ask what we may do"))
		return
	}
	var missing []string
	for _, action := range needed {
		allowed := false
		for _, p := range all.Value {
			allowed = allowed || p.allows(action)
		}
		if !allowed {
			missing = append(missing, action)
		}
	}
	if len(missing) > 0 {
		r.add(gate.LevelFailure, "permissions", s.grant(), "the identity may not do: %s", strings.Join(missing, ", "))
		return
	}
	r.add(gate.LevelOK, "permissions", "", "all that is needed")
}

func (s *site) checkProviders(ctx context.Context, r *report) {
	for _, namespace := range []string{"Microsoft.Compute", "Microsoft.Network", "Microsoft.DevTestLab"} {
		subject, fix := "provider "+namespace, "az provider register --subscription "+s.o.Subscription+" -n "+namespace
		got, err := s.providers.Get(ctx, namespace, nil)
		switch state := value(got.RegistrationState); {
		case err != nil:
			r.wrong(gate.LevelWarning, subject, fix, s.explain(err, "look at the resource provider %s", namespace))
		case state != "Registered":
			r.add(gate.LevelFailure, subject, fix, "the subscription has it as %s", state)
		default:
			r.add(gate.LevelOK, subject, "", "registered")
		}
	}
}

// checkFlavor looks for the default flavor and the quotas that it needs.
func (s *site) checkFlavor(ctx context.Context, r *report) {
	sizes, err := s.sizes(ctx)
	if err != nil {
		r.wrong(gate.LevelFailure, "flavors", "", err)
		return
	}
	for _, z := range sizes {
		if value(z.Name) == s.o.DefaultFlavor {
			r.add(gate.LevelOK, "flavors", "", "%d sizes may be used in %s", len(sizes), s.o.Region)
			s.checkCores(ctx, r, z)
			s.checkAddresses(ctx, r)
			return
		}
	}
	r.add(gate.LevelFailure, "flavors", "az vm list-skus --location "+s.o.Region+" --resource-type virtualMachines -o table, and default_flavor of the site",
		"the default flavor %s is not to be had in %s", s.o.DefaultFlavor, s.o.Region)
}

// checkCores looks at the quotas of cores: those of the family and of the region. See
// https://learn.microsoft.com/azure/quotas/per-vm-quota-requests
func (s *site) checkCores(ctx context.Context, r *report, z size) {
	usages, err := collect(ctx, s.cores.NewListPager(s.o.Region, nil), func(p armcompute.UsageClientListResponse) []*armcompute.Usage { return p.Value })
	if err != nil {
		r.wrong(gate.LevelWarning, "quota", "", s.explain(err, "ask for the quotas of cores"))
		return
	}
	for _, u := range usages {
		if u.Name == nil {
			continue
		}
		name := value(u.Name.Value)
		if strings.EqualFold(name, "cores") || strings.EqualFold(name, value(z.Family)) {
			s.checkQuota(r, value(u.Name.LocalizedValue), name, "Microsoft.Compute", int64(value(u.CurrentValue)), value(u.Limit), int64(z.number("vCPUs")))
		}
	}
}

func (s *site) checkAddresses(ctx context.Context, r *report) {
	usages, err := collect(ctx, s.netUsages.NewListPager(s.o.Region, nil), func(p armnetwork.UsagesClientListResponse) []*armnetwork.Usage { return p.Value })
	if err != nil {
		r.wrong(gate.LevelWarning, "quota", "", s.explain(err, "ask for the quotas of networks"))
		return
	}
	for _, u := range usages {
		if u.Name == nil {
			continue
		}
		switch name := value(u.Name.Value); name {
		case "PublicIPAddresses", "StandardSkuPublicIpAddresses", "IPv4StandardSkuPublicIpAddresses":
			s.checkQuota(r, value(u.Name.LocalizedValue), name, "Microsoft.Network", value(u.CurrentValue), value(u.Limit), 1)
		}
	}
}

func (s *site) checkQuota(r *report, words, name, namespace string, used, limit, more int64) {
	if words == "" {
		words = name
	}
	if used+more <= limit {
		r.add(gate.LevelOK, "quota", "", "%s: %d of %d used", words, used, limit)
		return
	}
	scope := "/subscriptions/" + s.o.Subscription + "/providers/" + namespace + "/locations/" + s.o.Region
	r.add(gate.LevelFailure, "quota",
		fmt.Sprintf("az quota update --resource-name %s --scope %s --limit-object value=%d (az extension add -n quota), or the portal under Quotas", name, scope, limit+more),
		"%s: %d of %d used, one node of %s needs %d more", words, used, limit, s.o.DefaultFlavor, more)
}

// checkImages looks for the default image and those of the configuration.
func (s *site) checkImages(ctx context.Context, r *report) {
	names := map[string]string{}
	for _, b := range builtin {
		if b.name == s.o.DefaultImage || s.o.DefaultImage == "" && b.name == ubuntu {
			names[b.name] = b.urn
		}
	}
	for name, urn := range s.o.Images {
		names[name] = urn
	}
	for name, urn := range names {
		if err := s.imageExists(ctx, urn); err != nil {
			r.wrong(gate.LevelFailure, "image "+name, "az vm image list --all --location "+s.o.Region+" --offer … -o table", err)
			continue
		}
		r.add(gate.LevelOK, "image "+name, "", "%s", urn)
	}
}
