package azuretest

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
)

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// user is a resource that names an id or what is below it, other than those below
// except. e.mu is held.
func (e *Emulator) user(of, except string) *resource {
	whole, below := `"`+key(of)+`"`, `"`+key(of)+`/`
	all := e.list(0, func(r *resource) bool {
		if key(r.ID) == key(of) || key(r.ID) == key(except) || r.Kind == kindSchedule || r.Kind == kindDeployment {
			return false
		}
		body := strings.ToLower(string(r.Body))
		return strings.Contains(body, whole) || strings.Contains(body, below)
	})
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// inUse is the refusal to delete what another needs.
// https://learn.microsoft.com/azure/networking/troubleshoot-failed-state
func inUse(at string, by *resource) error {
	p := parseID(at)
	code := map[string]string{
		kindNSG: "InUseNetworkSecurityGroupCannotBeDeleted", kindNet: "InUseSubnetCannotBeDeleted", kindSubnet: "InUseSubnetCannotBeDeleted",
		kindIP: "PublicIPAddressCannotBeDeleted", kindNIC: "NicInUse",
	}
	for name, c := range code {
		if strings.EqualFold(name, p.kind) {
			return problem(http.StatusBadRequest, c, "%s %s is in use by %s and cannot be deleted.", p.kind, at, by.ID)
		}
	}
	return problem(http.StatusConflict, "OperationNotAllowed", "%s %s is in use by %s and cannot be deleted.", p.kind, at, by.ID)
}

func notUsed(e *Emulator, r *resource) error {
	if by := e.user(r.ID, ""); by != nil {
		return inUse(r.ID, by)
	}
	return nil
}

// fillNSG checks rules. https://learn.microsoft.com/rest/api/virtualnetwork/network-security-groups/create-or-update
func fillNSG(_ *Emulator, c *change) error {
	m := c.model.(*armnetwork.SecurityGroup)
	if m.Properties == nil {
		m.Properties = &armnetwork.SecurityGroupPropertiesFormat{}
	}
	seen := map[string]string{}
	for _, r := range m.Properties.SecurityRules {
		p := r.Properties
		name := text(r.Name)
		if p == nil || p.Access == nil || p.Direction == nil || p.Protocol == nil || p.Priority == nil {
			return problem(http.StatusBadRequest, "SecurityRuleInvalidProperties", "Security rule %s must specify access, direction, protocol and priority.", name)
		}
		if *p.Priority < 100 || *p.Priority > 4096 {
			return problem(http.StatusBadRequest, "SecurityRuleInvalidPriority", "Security rule has invalid Priority. Value provided: %d Allowed range 100-4096.", *p.Priority)
		}
		slot := fmt.Sprint(*p.Direction, *p.Priority)
		if other := seen[slot]; other != "" {
			return problem(http.StatusBadRequest, "SecurityRuleConflict", "Security rule %s conflicts with rule %s. Rules cannot have the same Priority and Direction.", name, other)
		}
		seen[slot] = name
		sources := append([]*string{}, p.SourceAddressPrefixes...)
		if p.SourceAddressPrefix != nil {
			sources = append(sources, p.SourceAddressPrefix)
		}
		if len(sources) == 0 || p.DestinationPortRange == nil && len(p.DestinationPortRanges) == 0 {
			return problem(http.StatusBadRequest, "SecurityRuleParameterNotSpecified", "Required security rule parameter SourceAddressPrefix or "+
				"DestinationPortRange for rule with Id %s must be specified.", name)
		}
		for _, s := range sources {
			if !sourceOK(*s) {
				return problem(http.StatusBadRequest, "SecurityRuleInvalidAddressPrefix", "Security rule has invalid Address prefix. Value provided: %s", *s)
			}
		}
		r.ID = to.Ptr(c.new.ID + "/securityRules/" + name)
		r.Type = to.Ptr(kindRule)
		p.ProvisioningState = to.Ptr(armnetwork.ProvisioningStateSucceeded)
	}
	c.host.ready(c.new)
	return nil
}

// sourceOK says whether a source is a prefix, an address or a tag.
func sourceOK(s string) bool {
	if _, err := netip.ParsePrefix(s); err == nil {
		return true
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s == "*" || s != "" && !strings.ContainsAny(s, "0123456789/:. ")
}

// fillNet checks subnets. https://learn.microsoft.com/rest/api/virtualnetwork/virtual-networks/create-or-update
func fillNet(e *Emulator, c *change) error {
	m := c.model.(*armnetwork.VirtualNetwork)
	if m.Properties == nil || m.Properties.AddressSpace == nil || len(m.Properties.AddressSpace.AddressPrefixes) == 0 {
		return problem(http.StatusBadRequest, "MissingJsonProperty", "Required property 'addressSpace' not found in JSON. Path 'properties'.")
	}
	var space []netip.Prefix
	for _, p := range m.Properties.AddressSpace.AddressPrefixes {
		prefix, err := netip.ParsePrefix(text(p))
		if err != nil || prefix != prefix.Masked() {
			return problem(http.StatusBadRequest, "InvalidCIDRNotation", "The address prefix %s in resource %s has an invalid CIDR notation.", text(p), c.new.ID)
		}
		space = append(space, prefix)
	}
	for _, s := range m.Properties.Subnets {
		name := text(s.Name)
		if s.Properties == nil {
			s.Properties = &armnetwork.SubnetPropertiesFormat{}
		}
		given := s.Properties.AddressPrefix
		if given == nil && len(s.Properties.AddressPrefixes) > 0 {
			given = s.Properties.AddressPrefixes[0]
		}
		prefix, err := netip.ParsePrefix(text(given))
		if err != nil || prefix != prefix.Masked() {
			return problem(http.StatusBadRequest, "InvalidCIDRNotation", "The address prefix %s in resource %s/subnets/%s has an invalid CIDR notation.", text(given), c.new.ID, name)
		}
		inside := false
		for _, p := range space {
			inside = inside || p.Contains(prefix.Addr()) && p.Bits() <= prefix.Bits()
		}
		if !inside {
			return problem(http.StatusBadRequest, "NetcfgSubnetRangeOutsideVnet", "Subnet '%s' is not valid because its IP address range "+
				"is outside the IP address range of virtual network '%s'.", name, c.new.Name)
		}
		if g := s.Properties.NetworkSecurityGroup; g != nil && e.get(text(g.ID)) == nil {
			return referenceNotFound(text(g.ID), c.new.ID)
		}
		s.ID, s.Type = to.Ptr(c.new.ID+"/subnets/"+name), to.Ptr(kindSubnet)
		s.Properties.ProvisioningState = to.Ptr(armnetwork.ProvisioningStateSucceeded)
	}
	e.ready(c.new)
	return nil
}

func referenceNotFound(id, by string) error {
	return problem(http.StatusBadRequest, "InvalidResourceReference", "Resource %s referenced by resource %s was not found. Please make sure that the referenced resource exists, "+
		"and that both resources are in the same region.", id, by)
}

// fillIP gives an address. https://learn.microsoft.com/rest/api/virtualnetwork/public-ip-addresses/create-or-update
func fillIP(e *Emulator, c *change) error {
	m := c.model.(*armnetwork.PublicIPAddress)
	if m.Properties == nil {
		m.Properties = &armnetwork.PublicIPAddressPropertiesFormat{}
	}
	p := m.Properties
	if p.PublicIPAllocationMethod == nil {
		p.PublicIPAllocationMethod = to.Ptr(armnetwork.IPAllocationMethodDynamic)
	}
	if m.SKU == nil || m.SKU.Name == nil {
		m.SKU = &armnetwork.PublicIPAddressSKU{Name: to.Ptr(armnetwork.PublicIPAddressSKUNameBasic)}
	}
	if *m.SKU.Name == armnetwork.PublicIPAddressSKUNameStandard && *p.PublicIPAllocationMethod != armnetwork.IPAllocationMethodStatic {
		return problem(http.StatusBadRequest, "StandardSkuPublicIPAddressesMustBeStatic", "Standard sku publicIp %s must have AllocationMethod set to Static.", c.new.ID)
	}
	p.IPAddress, p.IPConfiguration = nil, nil
	if c.old != nil {
		was := model[armnetwork.PublicIPAddress](c.old).Properties
		p.IPAddress, p.IPConfiguration = was.IPAddress, was.IPConfiguration
	} else {
		if e.used("PublicIPAddresses", c.new.Location) >= e.limit("PublicIPAddresses") {
			return problem(http.StatusBadRequest, "PublicIPCountLimitReached", "Cannot create more than %d public IP addresses for this subscription in this region.", e.limit("PublicIPAddresses"))
		}
		e.serial++
		p.IPAddress = to.Ptr(fmt.Sprintf("127.%d.%d.%d", 64+e.serial>>16&0x3f, e.serial>>8&0xff, e.serial&0xff))
	}
	if p.PublicIPAddressVersion == nil {
		p.PublicIPAddressVersion = to.Ptr(armnetwork.IPVersionIPv4)
	}
	e.ready(c.new)
	return nil
}

// fillNIC gives a private address, and notes itself down at its public one.
// https://learn.microsoft.com/rest/api/virtualnetwork/network-interfaces/create-or-update
func fillNIC(e *Emulator, c *change) error {
	m := c.model.(*armnetwork.Interface)
	if m.Properties == nil || len(m.Properties.IPConfigurations) == 0 {
		return problem(http.StatusBadRequest, "NetworkInterfaceMustHaveOneIpConfiguration", "Network interface %s must have one or more IP configurations.", c.new.ID)
	}
	if g := m.Properties.NetworkSecurityGroup; g != nil && e.get(text(g.ID)) == nil {
		return referenceNotFound(text(g.ID), c.new.ID)
	}
	var was *armnetwork.Interface
	m.Properties.VirtualMachine = nil
	if c.old != nil {
		was = model[armnetwork.Interface](c.old)
		m.Properties.VirtualMachine, m.Properties.MacAddress = was.Properties.VirtualMachine, was.Properties.MacAddress
	}
	for i, ip := range m.Properties.IPConfigurations {
		p := ip.Properties
		if p == nil || p.Subnet == nil {
			return problem(http.StatusBadRequest, "SubnetNotSpecified", "The IP configuration %s of network interface %s names no subnet.", text(ip.Name), c.new.ID)
		}
		subnet := text(p.Subnet.ID)
		net := e.get(parent(subnet))
		in := child("subnets", net, lastOf(subnet))
		if in == nil || net.Location != c.new.Location {
			return referenceNotFound(subnet, c.new.ID)
		}
		static := p.PrivateIPAllocationMethod != nil && *p.PrivateIPAllocationMethod == armnetwork.IPAllocationMethodStatic
		p.Primary = to.Ptr(i == 0)
		if was != nil && i < len(was.Properties.IPConfigurations) && !static {
			p.PrivateIPAddress = was.Properties.IPConfigurations[i].Properties.PrivateIPAddress
		} else if err := e.address(c.new, p, subnet, in); err != nil {
			return err
		}
		if !static {
			p.PrivateIPAllocationMethod = to.Ptr(armnetwork.IPAllocationMethodDynamic)
		}
		ip.ID = to.Ptr(c.new.ID + "/ipConfigurations/" + text(ip.Name))
		p.ProvisioningState = to.Ptr(armnetwork.ProvisioningStateSucceeded)
		if p.PublicIPAddress != nil {
			if err := e.attachIP(text(p.PublicIPAddress.ID), *ip.ID, c.new.ID); err != nil {
				return err
			}
		}
	}
	e.serial++
	if m.Properties.MacAddress == nil {
		m.Properties.MacAddress = to.Ptr(fmt.Sprintf("00-0D-3A-%02X-%02X-%02X", e.serial>>16&0xff, e.serial>>8&0xff, e.serial&0xff))
	}
	e.ready(c.new)
	return nil
}

// address finds a free address of a subnet; Azure keeps the first four.
func (e *Emulator) address(r *resource, p *armnetwork.InterfaceIPConfigurationPropertiesFormat, subnet string, in map[string]any) error {
	properties := in["properties"].(map[string]any)
	cidr, _ := properties["addressPrefix"].(string)
	if list, ok := properties["addressPrefixes"].([]any); ok && cidr == "" && len(list) > 0 {
		cidr, _ = list[0].(string)
	}
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return problem(http.StatusInternalServerError, "InternalServerError", "subnet %s: %v", subnet, err)
	}
	taken := map[string]bool{}
	for _, nic := range e.list(0, func(o *resource) bool {
		return o.Kind == kindNIC && o != r && strings.EqualFold(o.Group, parseID(subnet).group)
	}) {
		for _, ip := range model[armnetwork.Interface](nic).Properties.IPConfigurations {
			if strings.EqualFold(text(ip.Properties.Subnet.ID), subnet) {
				taken[text(ip.Properties.PrivateIPAddress)] = key(nic.ID) != key(r.ID)
			}
		}
	}
	if want := text(p.PrivateIPAddress); want != "" {
		addr, err := netip.ParseAddr(want)
		switch {
		case err != nil || !prefix.Contains(addr):
			return problem(http.StatusBadRequest, "PrivateIPAddressNotInSubnet", "Private static IP address %s does not belong to the range of subnet prefix %s.", want, cidr)
		case taken[want]:
			return problem(http.StatusBadRequest, "PrivateIPAddressInUse", "IP configuration %s is using the private IP address %s which is already allocated.", r.ID, want)
		}
		return nil
	}
	addr := prefix.Addr()
	for range 4 {
		addr = addr.Next()
	}
	for taken[addr.String()] {
		addr = addr.Next()
	}
	if !prefix.Contains(addr.Next()) {
		return problem(http.StatusBadRequest, "SubnetIsFull", "Subnet %s with address prefix %s does not have enough capacity for 1 IP addresses.", lastOf(subnet), cidr)
	}
	p.PrivateIPAddress = to.Ptr(addr.String())
	return nil
}

// attachIP gives a public address to an interface.
func (e *Emulator) attachIP(at, configuration, nic string) error {
	r := e.get(at)
	if r == nil {
		return referenceNotFound(at, nic)
	}
	m := model[armnetwork.PublicIPAddress](r)
	if by := m.Properties.IPConfiguration; by != nil && !strings.EqualFold(text(by.ID), configuration) {
		return problem(http.StatusBadRequest, "PublicIPAddressInUse", "Resource %s is referencing public IP address %s that is already allocated to resource %s.", configuration, at, text(by.ID))
	}
	m.Properties.IPConfiguration = &armnetwork.IPConfiguration{ID: &configuration}
	return e.remodel(r, m)
}

// removeNIC frees its public addresses.
func removeNIC(e *Emulator, r *resource) error {
	m := model[armnetwork.Interface](r)
	if vm := m.Properties.VirtualMachine; vm != nil {
		return problem(http.StatusBadRequest, "NicInUse", "Network Interface %s is used by existing resource %s. In order to delete the network interface, "+
			"it must be dissociated from the resource. To learn more, see aka.ms/deletenic.", r.ID, text(vm.ID))
	}
	for _, ip := range m.Properties.IPConfigurations {
		if ip.Properties.PublicIPAddress == nil {
			continue
		}
		if public := e.get(text(ip.Properties.PublicIPAddress.ID)); public != nil {
			pm := model[armnetwork.PublicIPAddress](public)
			pm.Properties.IPConfiguration = nil
			if err := e.remodel(public, pm); err != nil {
				return err
			}
		}
	}
	return nil
}
