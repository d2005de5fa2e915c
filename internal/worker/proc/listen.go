package proc

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Listener is a TCP socket that waits for connections.
type Listener struct {
	Address netip.AddrPort
	Inode   uint64
}

// Listeners returns the TCP sockets of this network namespace that listen on
// one of the ports.
func Listeners(ports []int) ([]Listener, error) {
	var all []Listener
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		found, err := listeners(path, ports)
		if err != nil {
			if os.IsNotExist(err) {
				continue // a kernel without IPv6
			}
			return nil, fmt.Errorf("read listening ports: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

func listeners(path string, ports []int) ([]Listener, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // Listeners wraps
	}
	defer func() { _ = file.Close() }() // was only read
	var found []Listener
	lines := bufio.NewScanner(file)
	lines.Scan() // the heading
	for lines.Scan() {
		if l, ok := parseListener(lines.Text()); ok && slices.Contains(ports, int(l.Address.Port())) {
			found = append(found, l)
		}
	}
	return found, lines.Err() //nolint:wrapcheck // Listeners wraps
}

// parseListener reads a row such as
//
//	0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 …
//
// where 0A means LISTEN. Addresses are words in the machine's byte order.
func parseListener(row string) (Listener, bool) {
	const listen = "0A"
	fields := strings.Fields(row)
	if len(fields) < 10 || fields[3] != listen {
		return Listener{}, false
	}
	host, port, ok := strings.Cut(fields[1], ":")
	if !ok {
		return Listener{}, false
	}
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return Listener{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word) // amd64 and arm64 are little-endian
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		return Listener{}, false
	}
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return Listener{}, false
	}
	inode, err := strconv.ParseUint(fields[9], 10, 64)
	if err != nil {
		return Listener{}, false
	}
	return Listener{Address: netip.AddrPortFrom(addr, uint16(number)), Inode: inode}, true
}
