package forward

import (
	"encoding/binary"
	"hash/fnv"
	"math/bits"
	"net/netip"

	"github.com/openworkload/skyport"
)

// Addresses is a set of addresses of which each job gets one for its in ports.
// It is a value without state.
type Addresses struct {
	prefix netip.Prefix
}

// maxHostBits bounds how many addresses of a range are used: 2^24 are enough.
const maxHostBits = 24

// ParseAddresses reads a setting: empty for the loopback addresses 127.x.y.z, one
// address (jobs share it, and each port can be had by one job only), or a range
// such as 192.0.2.128/25 whose addresses this machine has.
func ParseAddresses(setting string) (Addresses, error) {
	if setting == "" {
		return Addresses{prefix: netip.MustParsePrefix("127.0.0.0/8")}, nil
	}
	addr, err := netip.ParseAddr(setting)
	addr = addr.Unmap()
	if err == nil && addr.Zone() == "" && !addr.IsUnspecified() && !addr.IsMulticast() {
		return Addresses{prefix: netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	prefix, err := netip.ParsePrefix(setting)
	if err != nil {
		return Addresses{}, skyport.Errorf(skyport.CodeInvalid, "address of the forwarded ports: %q is neither an address of this machine nor a range", skyport.Abbreviate(setting, 60)).
			WithHint("write an address like 192.0.2.7, a range like 192.0.2.128/25, or nothing for loopback addresses")
	}
	return Addresses{prefix: prefix.Masked()}, nil
}

// For returns the address of a job: always the same for the same job and the
// same addresses in use, so that a core that starts again finds its choice.
// An address stays as long as inUse (nil: nothing is) does not name it. When all
// are taken the error is CodeUnavailable. A single address is never taken.
func (a Addresses) For(id skyport.JobID, inUse func(address string) bool) (string, error) {
	host := min(a.prefix.Addr().BitLen()-a.prefix.Bits(), maxHostBits)
	if host == 0 {
		return a.prefix.Addr().String(), nil
	}
	size := uint32(1) << host
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(id)) // a hash takes everything
	sum := bits.RotateLeft64(hash.Sum64()*0x9e3779b97f4a7c15, 31)
	at := uint32(sum) & (size - 1) //nolint:gosec // the low half is meant
	step := uint32(sum>>32) | 1    // odd, so that it comes by every address once
	for range size {
		addr := a.nth(at)
		if a.usable(addr, at, size) && (inUse == nil || !inUse(addr.String())) {
			return addr.String(), nil
		}
		at = (at + step) & (size - 1)
	}
	return "", skyport.Errorf(skyport.CodeUnavailable, "all addresses of %s are taken by jobs with forwarded ports", a.prefix).
		WithHint("wait until a job ends, or configure a larger range")
}

func (a Addresses) nth(n uint32) netip.Addr {
	raw := a.prefix.Addr().AsSlice()
	tail := raw[len(raw)-4:]
	binary.BigEndian.PutUint32(tail, binary.BigEndian.Uint32(tail)|n)
	addr, _ := netip.AddrFromSlice(raw) // the length is that of an address
	return addr
}

// usable leaves out what networks and habits have given a meaning.
func (a Addresses) usable(addr netip.Addr, n, size uint32) bool {
	if n == 0 || n == size-1 {
		return size <= 2 // network and broadcast addresses
	}
	if !addr.Is4() || !addr.IsLoopback() {
		return true
	}
	b := addr.As4()
	switch b[1] {
	case 0, // 127.0.0.1, and the resolvers at 127.0.0.53 and 127.0.0.11, the host name at 127.0.1.1, …
		53,  // 127.53.53.53, and 127.0.53.53 above: name collision answers
		127, // reference clocks of NTP
		255: // broadcast
		return false
	}
	return b[3] != 0 && b[3] != 255 // looks like a network to some programs
}
