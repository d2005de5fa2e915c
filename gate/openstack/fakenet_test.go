package openstack_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// network is the network service: all kinds alike, and what one thing is to another.
func (f *fake) network(r *http.Request, path string, body object) answer {
	many, id, _ := strings.Cut(path, "/")
	id, action, _ := strings.Cut(id, "/")
	one, known := plurals[many]
	switch {
	case many == "quotas":
		detail := func(limit, used int) object { return object{"limit": limit, "used": used, "reserved": 0} }
		return answer{200, object{"quota": object{
			"floatingip": detail(2, 1), "network": detail(-1, 5), "router": detail(3, 3), "subnet": detail(100, 1), "port": detail(100, 1),
			"security_group": detail(10, 1), "security_group_rule": detail(100, 4),
		}}}
	case many == "security-group-rules":
		return f.rule(r, id, body)
	case !known:
		return answer{}
	case action != "":
		return f.plug(id, action, body)
	case id == "" && r.Method == http.MethodGet:
		return f.listing(r, many, many2key(many))
	case id == "":
		return f.attach(many, one, body[one].(object))
	}
	o, ok := f.objects[many+"/"+id]
	if !ok {
		return neutron(404, "NotFound", one+" "+id+" could not be found.")
	}
	if r.Method == http.MethodDelete {
		return f.detach(many, id)
	}
	for name, value := range body[one].(object) {
		o[name] = value
	}
	return answer{200, object{one: o}}
}

func many2key(many string) string { return strings.ReplaceAll(many, "-", "_") }

// attach makes a thing.
func (f *fake) attach(many, one string, o object) answer {
	if text, ok := o["description"].(string); ok && len(text) > 255 {
		return neutron(400, "HTTPBadRequest", "Invalid input for description. Reason: '"+text+"' exceeds maximum length of 255.")
	}
	switch many {
	case "security-groups":
		o["security_group_rules"] = []object{{"id": "egress", "direction": "egress", "ethertype": "IPv4"}, {"id": "egress6", "direction": "egress", "ethertype": "IPv6"}}
	case "ports":
		for _, ip := range asList(o["fixed_ips"]) {
			for _, other := range f.all("ports", nil) {
				if fmt.Sprint(other["fixed_ips"]) == fmt.Sprint([]any{ip}) {
					return neutron(409, "IpAddressAlreadyAllocated", "IP address already allocated in subnet")
				}
			}
		}
		if o["fixed_ips"] == nil {
			o["fixed_ips"] = []any{object{"subnet_id": "provider", "ip_address": netip.AddrFrom4([4]byte{192, 0, 2, byte(f.n)}).String()}}
		}
	case "floatingips":
		if len(f.all("ports", func(p object) bool { return p["device_owner"] == "network:router_interface" })) == 0 {
			return neutron(404, "ExternalGatewayForFloatingIPNotFound", "External network ext is not reachable from subnet")
		}
		o["floating_ip_address"] = fmt.Sprintf("203.0.113.%d", f.n%250)
	}
	return answer{201, object{one: f.add(many, o)}}
}

func asList(v any) []any {
	list, _ := v.([]any) //nolint:errcheck // none is as good
	return list
}

// detach removes a thing that nothing needs any more.
func (f *fake) detach(many, id string) answer {
	users := func(field string, kind string) int {
		return len(f.all(kind, func(o object) bool {
			for _, peer := range append(asList(o[field]), o[field]) {
				if peer == id {
					return true
				}
				if ip, ok := peer.(object); ok && ip["subnet_id"] == id {
					return true
				}
			}
			return false
		}))
	}
	switch {
	case many == "networks" && users("network_id", "ports") > 0:
		return neutron(409, "NetworkInUse", "Unable to complete operation on network "+id+". There are one or more ports still in use on the network.")
	case many == "subnets" && users("fixed_ips", "ports") > 0:
		return neutron(409, "SubnetInUse", "Unable to complete operation on subnet "+id+": One or more ports have an IP allocation from this subnet.")
	case many == "routers" && users("device_id", "ports") > 0:
		return neutron(409, "RouterInUse", "Router "+id+" still has ports")
	case many == "security-groups" && users("security_groups", "ports") > 0:
		return neutron(409, "SecurityGroupInUse", "Security Group "+id+" in use.")
	case many == "ports" && f.objects["ports/"+id]["device_owner"] == "network:router_interface":
		return neutron(409, "ServicePortInUse", "Port "+id+" cannot be deleted directly via the port API: has device owner network:router_interface.")
	}
	delete(f.objects, many+"/"+id)
	if many == "networks" {
		for _, s := range f.all("subnets", func(o object) bool { return o["network_id"] == id }) {
			delete(f.objects, "subnets/"+s["id"].(string))
		}
	}
	return answer{status: 204}
}

func (f *fake) rule(r *http.Request, id string, body object) answer {
	if r.Method == http.MethodDelete {
		for _, g := range f.all("security-groups", nil) {
			var keep []object
			for _, rule := range g["security_group_rules"].([]object) {
				if rule["id"] != id {
					keep = append(keep, rule)
				}
			}
			g["security_group_rules"] = keep
		}
		return answer{status: 204}
	}
	o := body["security_group_rule"].(object)
	group, ok := f.objects["security-groups/"+o["security_group_id"].(string)]
	if !ok {
		return neutron(404, "SecurityGroupNotFound", "Security group does not exist")
	}
	f.n++
	o["id"] = fmt.Sprintf("rule-%d", f.n)
	group["security_group_rules"] = append(group["security_group_rules"].([]object), o)
	return answer{201, object{"security_group_rule": o}}
}

// plug connects subnets and routers.
func (f *fake) plug(router, action string, body object) answer {
	if f.objects["routers/"+router] == nil {
		return neutron(404, "RouterNotFound", "Router "+router+" could not be found")
	}
	if action == "remove_router_interface" {
		id := body["port_id"].(string)
		if len(f.all("floatingips", func(o object) bool { return o["port_id"] != nil })) > 0 && f.behind(id) {
			return neutron(409, "RouterInterfaceInUseByFloatingIP", "Router interface cannot be deleted, as it is required by one or more floating IPs.")
		}
		delete(f.objects, "ports/"+id)
		return answer{200, object{"id": router}}
	}
	subnet := body["subnet_id"].(string)
	for _, p := range f.all("ports", func(o object) bool { return o["device_id"] == router }) {
		if strings.Contains(fmt.Sprint(p["fixed_ips"]), subnet) {
			return neutron(400, "BadRequest", "Bad router request: Router already has a port on subnet "+subnet+".")
		}
	}
	s := f.objects["subnets/"+subnet]
	f.add("ports", object{
		"network_id": s["network_id"], "device_id": router, "device_owner": "network:router_interface",
		"fixed_ips": []any{object{"subnet_id": subnet, "ip_address": host(s["cidr"].(string))}},
	})
	return answer{200, object{"id": router}}
}

// behind says whether a floating address leads into the subnet of a router's port.
func (f *fake) behind(port string) bool {
	p := f.objects["ports/"+port]
	for _, float := range f.all("floatingips", nil) {
		id, _ := float["port_id"].(string) //nolint:errcheck // none is as good
		if to := f.objects["ports/"+id]; to != nil && p != nil && to["network_id"] == p["network_id"] {
			return true
		}
	}
	return false
}
