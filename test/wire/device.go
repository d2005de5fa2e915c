package wire

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	tunDevice = "/dev/net/tun"
	// headerSize is that of the virtio_net_hdr before each packet: it says what
	// the kernel left undone (checksum, cutting) and goes over to the other side
	// as it is.
	headerSize   = 10
	largestFrame = headerSize + 64<<10
)

// device is an end of the link. It goes when it is closed, or with the process.
type device struct{ *os.File }

func openDevice(ns *Namespace, name string) (*device, error) {
	var d *device
	err := ns.Do(func() error {
		fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", tunDevice, err)
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			_ = unix.Close(fd) // the other error counts
			return fmt.Errorf("make the device %s: %w", name, err)
		}
		d = &device{os.NewFile(uintptr(fd), name)} // now: a descriptor without a device cannot be polled
		return nil
	})
	return d, err
}

// offload lets the kernel give large packets of TCP, or cuts them.
func (d *device) offload(large bool) error {
	flags := unix.TUN_F_CSUM
	if large {
		flags |= unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	}
	raw, err := d.SyscallConn()
	if err != nil {
		return fmt.Errorf("set up %s: %w", d.Name(), err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, flags) }); err != nil {
		return fmt.Errorf("set up %s: %w", d.Name(), err)
	}
	if failed != nil {
		return fmt.Errorf("set up %s: %w", d.Name(), failed)
	}
	return nil
}
