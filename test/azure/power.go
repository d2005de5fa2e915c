package azuretest

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
)

// machine is what a virtual machine asks to become.
func (e *Emulator) machine(r *resource) Machine {
	p := model[armcompute.VirtualMachine](r).Properties
	m := Machine{ID: r.ID, Group: r.Group, Name: r.Name, Host: text(p.OSProfile.ComputerName), Size: r.Size}
	if size, ok := e.sizeNamed(m.Size); ok {
		m.CPUs, m.MemoryMiB = size.cpus, int64(size.memory*1024)
	}
	m.CustomData, _ = base64.StdEncoding.DecodeString(r.Secret) // was checked when it came
	return m
}

// machinesOf are those of virtual machines that still exist. e.mu is held.
func (e *Emulator) machinesOf(ids []string) (all []Machine) {
	for _, id := range ids {
		if r := e.get(id); r != nil && r.Kind == kindVM {
			all = append(all, e.machine(r))
		}
	}
	return all
}

// boot carries machines from creation to running. It tells what failed, by id.
func (e *Emulator) boot(ctx context.Context, ids []string) map[string]*Problem {
	failed := map[string]*Problem{}
	e.mu.Lock()
	var going []Machine
	for _, m := range e.machinesOf(ids) {
		if e.full(m, e.get(m.ID)) {
			failed[key(m.ID)] = noHost(e.get(m.ID))
			continue
		}
		going = append(going, m)
	}
	e.mu.Unlock()
	if len(going) > 0 {
		began := time.Now()
		addresses, err := e.o.Machines.Boot(ctx, going)
		if err == nil && !rest(ctx, e.o.Boot-time.Since(began)) {
			err = ctx.Err()
		}
		e.mu.Lock()
		for _, m := range going {
			one := err
			if one == nil {
				one = e.booted(m.ID, addresses[m.ID])
			}
			if one != nil {
				failed[key(m.ID)] = problem(http.StatusConflict, "OSProvisioningTimedOut", "OS Provisioning for VM '%s' did not finish in the allotted time: %v", m.Name, one)
			}
		}
		e.mu.Unlock()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, p := range failed {
		if r := e.get(id); r != nil && r.State != "Deleting" {
			r = r.clone()
			r.State, r.Power, r.Failure = "Failed", "", p.Error()
			e.put(r)
		}
	}
	return failed
}

// full says whether there is no host for a machine.
func (e *Emulator) full(m Machine, r *resource) bool {
	f := e.Faults()
	is := func(s string) bool { return strings.EqualFold(s, m.Size) }
	return slices.ContainsFunc(f.SoldOut, is) || r.Spot && slices.ContainsFunc(f.SoldOutSpot, is) || e.lucky(f.NoCapacity)
}

// noHost is what is said of a machine without a host; of spot machines
// https://learn.microsoft.com/azure/virtual-machines/error-codes-spot says it.
func noHost(r *resource) *Problem {
	if r.Spot {
		return skuNotAvailable(r.Size, r.Location)
	}
	return allocationFailed()
}

// booted notes that a machine runs, and where. e.mu is held.
func (e *Emulator) booted(id string, at Addresses) error {
	r := e.get(id)
	if r == nil || r.State == "Deleting" {
		return errors.New("it was deleted meanwhile")
	}
	for _, ref := range model[armcompute.VirtualMachine](r).Properties.NetworkProfile.NetworkInterfaces {
		nic := e.get(text(ref.ID))
		if nic == nil || at == (Addresses{}) {
			break
		}
		m := model[armnetwork.Interface](nic)
		for _, ip := range m.Properties.IPConfigurations {
			if at.Private != "" {
				ip.Properties.PrivateIPAddress = &at.Private
			}
			if ip.Properties.PublicIPAddress == nil || at.Public == "" {
				continue
			}
			if public := e.get(text(ip.Properties.PublicIPAddress.ID)); public != nil {
				pm := model[armnetwork.PublicIPAddress](public)
				pm.Properties.IPAddress = &at.Public
				if err := e.remodel(public, pm); err != nil {
					return err
				}
			}
		}
		if err := e.remodel(nic, m); err != nil {
			return err
		}
		break // the first is the one that counts
	}
	r = r.clone()
	r.State, r.Power = "", powerRunning
	e.put(r)
	return nil
}

// endMachines removes virtual machines and what is to go with them.
func (e *Emulator) endMachines(ctx context.Context, ids []string) *Problem {
	e.mu.Lock()
	all := e.machinesOf(ids)
	e.mu.Unlock()
	if err := e.o.Machines.Remove(ctx, all); err != nil {
		return problem(http.StatusInternalServerError, "InternalExecutionError", "An internal execution error occurred: %v", err)
	}
	rest(ctx, e.o.Latency)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range all {
		if r := e.get(m.ID); r != nil {
			if err := e.detach(r); err != nil {
				return problem(http.StatusInternalServerError, "InternalExecutionError", "An internal execution error occurred: %v", err)
			}
			e.drop(r.ID)
		}
	}
	return nil
}

// detach frees or deletes what a machine uses, as its delete options say.
// https://learn.microsoft.com/azure/virtual-machines/delete
func (e *Emulator) detach(r *resource) error {
	p := model[armcompute.VirtualMachine](r).Properties
	if d := p.StorageProfile.OSDisk; d != nil && d.ManagedDisk != nil && d.ManagedDisk.ID != nil {
		disk := e.get(*d.ManagedDisk.ID)
		switch {
		case disk == nil:
		case d.DeleteOption != nil && *d.DeleteOption == armcompute.DiskDeleteOptionTypesDelete:
			e.drop(disk.ID)
		default:
			m := model[armcompute.Disk](disk)
			m.ManagedBy = nil
			state := armcompute.DiskStateUnattached
			m.Properties.DiskState = &state
			if err := e.remodel(disk, m); err != nil {
				return err
			}
		}
	}
	for _, ref := range p.NetworkProfile.NetworkInterfaces {
		nic := e.get(text(ref.ID))
		if nic == nil {
			continue
		}
		m := model[armnetwork.Interface](nic)
		m.Properties.VirtualMachine = nil
		if err := e.remodel(nic, m); err != nil {
			return err
		}
		if ref.Properties == nil || ref.Properties.DeleteOption == nil || *ref.Properties.DeleteOption != armcompute.DeleteOptionsDelete {
			continue
		}
		if err := removeNIC(e, e.get(nic.ID)); err != nil {
			return err
		}
		e.drop(nic.ID)
		for _, ip := range m.Properties.IPConfigurations {
			public := ip.Properties.PublicIPAddress
			if public != nil && public.Properties != nil && public.Properties.DeleteOption != nil && *public.Properties.DeleteOption == armnetwork.DeleteOptionsDelete {
				e.drop(text(public.ID))
			}
		}
	}
	return nil
}

// deallocate stops a machine.
func (e *Emulator) deallocate(ctx context.Context, id, power string) *Problem {
	e.mu.Lock()
	all := e.machinesOf([]string{id})
	e.mu.Unlock()
	if len(all) == 0 {
		return noResource(id)
	}
	if err := e.o.Machines.Stop(ctx, all[0]); err != nil {
		return problem(http.StatusInternalServerError, "InternalExecutionError", "An internal execution error occurred: %v", err)
	}
	e.setPower(id, power)
	return nil
}

func (e *Emulator) setPower(id, power string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.get(id); r != nil && r.State != "Deleting" {
		r = r.clone()
		r.Power = power
		e.put(r)
	}
}

// Evict takes a spot machine back, as its eviction policy says.
// https://learn.microsoft.com/azure/virtual-machines/spot-vms#eviction-policy
func (e *Emulator) Evict(id string) error {
	e.mu.Lock()
	r := e.get(id)
	if r == nil || r.Kind != kindVM {
		e.mu.Unlock()
		return noResource(id)
	}
	p := model[armcompute.VirtualMachine](r).Properties
	e.mu.Unlock()
	var failed *Problem
	switch {
	case !r.Spot:
		failed = problem(http.StatusConflict, "OperationNotAllowed", "Only Azure Spot Virtual Machines can be evicted, not %s.", r.Name)
	case p.EvictionPolicy != nil && *p.EvictionPolicy == armcompute.VirtualMachineEvictionPolicyTypesDelete:
		failed = e.endMachines(e.ctx, []string{id})
	default:
		failed = e.deallocate(e.ctx, id, powerDeallocated)
	}
	if failed != nil {
		return failed
	}
	return nil
}

// ShutDown deallocates the virtual machine of a host name, as a schedule does.
func (e *Emulator) ShutDown(host string) error {
	e.mu.Lock()
	found := e.list(0, func(r *resource) bool { return r.Kind == kindVM && r.State != "Deleting" && e.machine(r).Host == host })
	e.mu.Unlock()
	if len(found) == 0 {
		return noResource(host)
	}
	if p := e.deallocate(e.ctx, found[0].ID, powerDeallocated); p != nil {
		return p
	}
	return nil
}

// act is a POST upon a resource.
// https://learn.microsoft.com/rest/api/compute/virtual-machines/deallocate
func (e *Emulator) act(req *request, at, action string) (*response, error) {
	e.mu.Lock()
	r := e.get(at)
	if r == nil {
		e.mu.Unlock()
		return nil, noResource(at)
	}
	if req.method == http.MethodGet && r.Kind == kindVM && strings.EqualFold(action, "instanceView") {
		defer e.mu.Unlock()
		return answer(http.StatusOK, e.instanceView(r))
	}
	e.mu.Unlock()
	if r.Kind != kindVM || req.method != http.MethodPost {
		return nil, badType(parseID(at).namespace, "virtualMachines/"+action, req.version)
	}
	var do func(context.Context) *Problem
	switch strings.ToLower(action) {
	case "deallocate":
		do = func(ctx context.Context) *Problem { return e.deallocate(ctx, at, powerDeallocated) }
	case "poweroff":
		do = func(ctx context.Context) *Problem { return e.deallocate(ctx, at, powerStopped) }
	case "start", "restart":
		do = func(ctx context.Context) *Problem { return e.start(ctx, at) }
	case "simulateeviction":
		if err := e.Evict(at); err != nil {
			return nil, err
		}
		return answer(http.StatusNoContent, nil)
	default:
		return nil, badType(parseID(at).namespace, "virtualMachines/"+action, req.version)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	op := e.begin(true)
	out, err := answer(http.StatusAccepted, nil)
	e.accepted(out, op, parseID(at).namespace, r.Location, req.version)
	e.jobs.Go(func() {
		failed := do(e.ctx)
		e.mu.Lock()
		defer e.mu.Unlock()
		op.end(failed)
	})
	return out, err
}

func (e *Emulator) start(ctx context.Context, id string) *Problem {
	e.mu.Lock()
	all := e.machinesOf([]string{id})
	var full *Problem
	if len(all) > 0 && e.full(all[0], e.get(id)) {
		full = noHost(e.get(id))
	}
	e.mu.Unlock()
	switch {
	case len(all) == 0:
		return noResource(id)
	case full != nil:
		return full
	}
	if err := e.o.Machines.Start(ctx, all[0]); err != nil {
		return problem(http.StatusInternalServerError, "InternalExecutionError", "An internal execution error occurred: %v", err)
	}
	rest(ctx, e.o.Boot)
	e.setPower(id, powerRunning)
	return nil
}
