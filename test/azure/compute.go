package azuretest

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"
)

// Power states, as instance views tell them.
// https://learn.microsoft.com/azure/virtual-machines/states-billing
const (
	powerStarting    = "starting"
	powerRunning     = "running"
	powerDeallocated = "deallocated"
	powerStopped     = "stopped"
)

// hostName is what Linux machines may be called.
var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?$`)

// fillVM checks a virtual machine and gives it its disk.
// https://learn.microsoft.com/rest/api/compute/virtual-machines/create-or-update
func fillVM(e *Emulator, c *change) error {
	m := c.model.(*armcompute.VirtualMachine)
	p := m.Properties
	if p == nil || p.HardwareProfile == nil || p.HardwareProfile.VMSize == nil {
		return invalidParameter("vmSize", "Required parameter 'vmSize' is missing (null).")
	}
	size, ok := e.sizeNamed(string(*p.HardwareProfile.VMSize))
	if !ok {
		return invalidParameter("vmSize", "The value %s provided for the VM size is not valid. The valid sizes in the current region are: %s.", *p.HardwareProfile.VMSize, e.sizeNames())
	}
	if err := e.checkImage(c, size); err != nil {
		return err
	}
	if err := checkSystem(c, p); err != nil {
		return err
	}
	c.new.Size = size.name
	if p.Priority != nil && *p.Priority == armcompute.VirtualMachinePriorityTypesSpot {
		c.new.Spot = true
		if !size.spot {
			return problem(http.StatusBadRequest, "OperationNotAllowed", "The specified VM size %s does not support Spot priority.", size.name)
		}
		if p.EvictionPolicy == nil {
			p.EvictionPolicy = to.Ptr(armcompute.VirtualMachineEvictionPolicyTypesDeallocate)
		}
	} else if p.EvictionPolicy != nil || p.BillingProfile != nil && p.BillingProfile.MaxPrice != nil {
		return invalidParameter("evictionPolicy", "Eviction policy and max price can be set only for Azure Spot Virtual Machines.")
	}
	if near := p.ProximityPlacementGroup; near != nil && e.get(text(near.ID)) == nil {
		return problem(http.StatusNotFound, "NotFound", "The entity was not found in this Azure location: the proximity placement group %s.", text(near.ID))
	}
	if err := e.takeNICs(c, m); err != nil {
		return err
	}
	p.InstanceView, p.ProvisioningState = nil, nil
	p.VMID, p.TimeCreated = to.Ptr(guidOf(c.new.ID, c.new.Created)), to.Ptr(c.new.Created)
	if c.old != nil {
		was := model[armcompute.VirtualMachine](c.old).Properties
		p.VMID, p.TimeCreated, p.StorageProfile.OSDisk = was.VMID, was.TimeCreated, was.StorageProfile.OSDisk
		return nil
	}
	c.new.State, c.new.Power = "Creating", powerStarting
	return e.makeDisk(c, m)
}

// checkSystem checks what is asked for of the operating system.
func checkSystem(c *change, p *armcompute.VirtualMachineProperties) error {
	o := p.OSProfile
	if o == nil {
		return invalidParameter("osProfile", "Required parameter 'osProfile' is missing (null).")
	}
	if o.ComputerName == nil {
		o.ComputerName = &c.new.Name
	}
	if !hostName.MatchString(*o.ComputerName) {
		return invalidParameter("computerName", "Linux host name cannot exceed 64 characters in length or contain the following characters: "+
			"` ~ ! @ # $ %% ^ & * ( ) = + _ [ ] { } \\\\ | ; : ' \" , < > / ?.")
	}
	user := text(o.AdminUsername)
	switch {
	case user == "":
		return invalidParameter("adminUsername", "Required parameter 'adminUsername' is missing (null).")
	case slices.Contains([]string{"admin", "administrator", "root", "user", "test", "guest", "sys", "backup", "console", "1", "123", "a"}, strings.ToLower(user)):
		return invalidParameter("adminUsername", "The Admin Username specified is not allowed.")
	}
	keys := 0
	l := o.LinuxConfiguration
	if l != nil && l.SSH != nil {
		for _, k := range l.SSH.PublicKeys {
			keys++
			if want := "/home/" + user + "/.ssh/authorized_keys"; text(k.Path) != want {
				return invalidParameter("linuxConfiguration.ssh.publicKeys.path", "Destination path for SSH public keys is currently limited to its default value %s "+
					"due to a known issue in Linux provisioning agent.", want)
			}
			kind, _, _ := strings.Cut(text(k.KeyData), " ")
			if kind != "ssh-rsa" && kind != "ssh-ed25519" {
				return invalidParameter("linuxConfiguration.ssh.publicKeys.keyData", "The value of parameter linuxConfiguration.ssh.publicKeys.keyData is invalid.")
			}
		}
	}
	password := l == nil || l.DisablePasswordAuthentication == nil || !*l.DisablePasswordAuthentication
	switch {
	case password && o.AdminPassword == nil && c.old == nil:
		return invalidParameter("adminPassword", "Required parameter 'adminPassword' is missing (null).")
	case !password && keys == 0:
		return invalidParameter("linuxConfiguration", "Authentication using either SSH or by user name and password must be enabled in Linux profile.")
	}
	if data := text(o.CustomData); data != "" {
		raw, err := base64.StdEncoding.DecodeString(data)
		switch {
		case err != nil:
			return invalidParameter("customData", "Custom data in OSProfile must be in Base64 encoding and with a maximum length of 87380 characters.")
		case len(data) > 87380 || len(raw) > 65535:
			return invalidParameter("customData", "Custom data in OSProfile must be in Base64 encoding and with a maximum length of 87380 characters.")
		case c.old != nil && c.old.Secret != data:
			return problem(http.StatusConflict, "PropertyChangeNotAllowed", "Changing property 'osProfile.customData' is not allowed.")
		}
		c.new.Secret = data
	}
	o.CustomData, o.AdminPassword = nil, nil // never told again
	return nil
}

// takeNICs attaches the interfaces. They must be there and free.
func (e *Emulator) takeNICs(c *change, m *armcompute.VirtualMachine) error {
	if m.Properties.NetworkProfile == nil || len(m.Properties.NetworkProfile.NetworkInterfaces) == 0 {
		return invalidParameter("networkProfile", "Virtual machine %s must have at least one network interface.", c.new.Name)
	}
	for _, ref := range m.Properties.NetworkProfile.NetworkInterfaces {
		nic := e.get(text(ref.ID))
		if nic == nil || nic.Location != c.new.Location {
			return problem(http.StatusNotFound, "NotFound", "Network interface %s was not found in location %s.", text(ref.ID), c.new.Location)
		}
		nm := model[armnetwork.Interface](nic)
		if by := nm.Properties.VirtualMachine; by != nil && key(text(by.ID)) != key(c.new.ID) {
			return problem(http.StatusBadRequest, "NicInUse", "Network Interface %s is used by existing resource %s.", nic.ID, text(by.ID))
		}
		nm.Properties.VirtualMachine, nm.Properties.Primary = &armnetwork.SubResource{ID: &c.new.ID}, to.Ptr(true)
		if err := e.remodel(nic, nm); err != nil {
			return err
		}
	}
	return nil
}

// makeDisk makes the disk of the operating system, with the machine's tags.
func (e *Emulator) makeDisk(c *change, m *armcompute.VirtualMachine) error {
	s := m.Properties.StorageProfile
	if s.OSDisk == nil {
		s.OSDisk = &armcompute.OSDisk{CreateOption: to.Ptr(armcompute.DiskCreateOptionTypesFromImage)}
	}
	d := s.OSDisk
	if d.Name == nil {
		d.Name = to.Ptr(c.new.Name + "_OsDisk_1_" + strings.ReplaceAll(guidOf(c.new.ID, c.new.Created), "-", ""))
	}
	if d.DeleteOption == nil {
		d.DeleteOption = to.Ptr(armcompute.DiskDeleteOptionTypesDetach)
	}
	if d.DiskSizeGB == nil {
		d.DiskSizeGB = to.Ptr[int32](30)
	} else if *d.DiskSizeGB < 30 {
		return invalidParameter("osDisk.diskSizeGB", "The specified disk size %d GB is smaller than the size of the corresponding disk in the VM image: 30 GB. "+
			"This is not allowed. Please choose equal or greater size or do not specify an explicit size.", *d.DiskSizeGB)
	}
	d.OSType = to.Ptr(armcompute.OperatingSystemTypesLinux)
	if d.DiffDiskSettings != nil {
		return nil // on the host itself
	}
	if d.ManagedDisk == nil {
		d.ManagedDisk = &armcompute.ManagedDiskParameters{}
	}
	if d.ManagedDisk.StorageAccountType == nil {
		d.ManagedDisk.StorageAccountType = to.Ptr(armcompute.StorageAccountTypesStandardLRS)
	}
	id := e.groupID(c.new.Group) + "/providers/" + kindDisk + "/" + *d.Name
	d.ManagedDisk.ID = &id
	disk := &change{new: &resource{
		ID: id, Kind: kindDisk, Name: *d.Name, Group: c.new.Group, Location: c.new.Location, Tags: c.new.Tags, Created: e.now(),
	}, model: &armcompute.Disk{
		ManagedBy: &c.new.ID, SKU: &armcompute.DiskSKU{Name: to.Ptr(armcompute.DiskStorageAccountTypes(*d.ManagedDisk.StorageAccountType))},
		Properties: &armcompute.DiskProperties{
			CreationData: &armcompute.CreationData{CreateOption: to.Ptr(armcompute.DiskCreateOptionFromImage)}, DiskSizeGB: d.DiskSizeGB,
			DiskState: to.Ptr(armcompute.DiskStateAttached), OSType: to.Ptr(armcompute.OperatingSystemTypesLinux), TimeCreated: to.Ptr(e.now()),
		},
	}}
	if err := disk.encode(); err != nil {
		return err
	}
	e.put(disk.new)
	return nil
}

// fillDisk makes a disk that is not a machine's.
func fillDisk(e *Emulator, c *change) error {
	m := c.model.(*armcompute.Disk)
	if m.Properties == nil || m.Properties.CreationData == nil || m.Properties.CreationData.CreateOption == nil {
		return invalidParameter("disk.creationData", "Required parameter 'disk.creationData' is missing (null).")
	}
	m.Properties.DiskState = to.Ptr(armcompute.DiskStateUnattached)
	if c.old != nil {
		was := model[armcompute.Disk](c.old)
		m.ManagedBy, m.Properties.DiskState = was.ManagedBy, was.Properties.DiskState
	}
	e.ready(c.new)
	return nil
}

func removeDisk(_ *Emulator, r *resource) error {
	if by := model[armcompute.Disk](r).ManagedBy; by != nil {
		return problem(http.StatusConflict, "OperationNotAllowed", "Disk %s is attached to VM %s.", r.Name, *by)
	}
	return nil
}

// fillNear makes a proximity placement group.
// https://learn.microsoft.com/rest/api/compute/proximity-placement-groups/create-or-update
func fillNear(_ *Emulator, c *change) error {
	m := c.model.(*armcompute.ProximityPlacementGroup)
	if m.Properties == nil {
		m.Properties = &armcompute.ProximityPlacementGroupProperties{}
	}
	if m.Properties.ProximityPlacementGroupType == nil {
		m.Properties.ProximityPlacementGroupType = to.Ptr(armcompute.ProximityPlacementGroupTypeStandard)
	}
	return nil
}

// instanceView is what a machine does.
// https://learn.microsoft.com/rest/api/compute/virtual-machines/instance-view
func (e *Emulator) instanceView(r *resource) armcompute.VirtualMachineInstanceView {
	status := func(code, display string) *armcompute.InstanceViewStatus {
		return &armcompute.InstanceViewStatus{Code: &code, DisplayStatus: &display, Level: to.Ptr(armcompute.StatusLevelTypesInfo), Time: to.Ptr(r.Changed)}
	}
	provisioning := status("ProvisioningState/"+strings.ToLower(r.state()), "Provisioning "+strings.ToLower(r.state()))
	if r.Failure != "" {
		code, message, _ := strings.Cut(r.Failure, ": ")
		provisioning.Code, provisioning.Message = to.Ptr("ProvisioningState/failed/"+code), &message
		provisioning.Level = to.Ptr(armcompute.StatusLevelTypesError)
	}
	view := armcompute.VirtualMachineInstanceView{Statuses: []*armcompute.InstanceViewStatus{provisioning}}
	if r.Power != "" {
		view.Statuses = append(view.Statuses, status("PowerState/"+r.Power, "VM "+r.Power))
	}
	return view
}

func guidOf(id string, made time.Time) string {
	h := fmt.Sprintf("%032x", sumOf(fmt.Sprint(key(id), made.UnixNano())))[:32]
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
}
