package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// forwarding is the switch that lets the machine pass packets on.
const forwarding = "/proc/sys/net/ipv4/ip_forward"

// join lets what comes out of the link go on from the machine, and back.
func (l *Link) join(ctx context.Context, masquerade bool) error {
	before, err := os.ReadFile(forwarding)
	if err != nil {
		return fmt.Errorf("let the machine forward: %w", err)
	}
	if strings.TrimSpace(string(before)) == "0" {
		if err := os.WriteFile(forwarding, []byte("1"), 0o600); err != nil {
			return fmt.Errorf("let the machine forward: %w", err)
		}
		l.undo = append(l.undo, func() error { return os.WriteFile(forwarding, before, 0o600) })
	}
	rules := [][]string{
		{"filter", "FORWARD", "-i", l.B.Device, "-j", "ACCEPT"},
		{"filter", "FORWARD", "-o", l.B.Device, "-j", "ACCEPT"},
	}
	if masquerade {
		rules = append(rules, []string{"nat", "POSTROUTING", "-s", l.A.Addr.String(), "!", "-o", l.B.Device, "-j", "MASQUERADE"})
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		if masquerade {
			return fmt.Errorf("set up a NAT: %w", err)
		}
		return nil // nobody can have forbidden anything
	}
	for _, rule := range rules {
		rule = append(rule, "-m", "comment", "--comment", l.name)
		if err := iptables(ctx, "-I", rule); err != nil {
			return err
		}
		l.undo = append(l.undo, func() error { return iptables(context.Background(), "-D", rule) })
	}
	return nil
}

func iptables(ctx context.Context, what string, rule []string) error {
	return run(ctx, "iptables", append([]string{"-w", "10", "-t", rule[0], what}, rule[1:]...)...)
}

// rootDevice is the device's name where it must differ from all others.
func (l *Link) rootDevice() string {
	return "skw" + strings.TrimPrefix(l.name, prefix) // 7 digits and a few: below 16
}

// freeSubnet picks two addresses from 198.18.0.0/15, which is set aside for
// measuring networks, in a subnet that the machine does not use.
func freeSubnet(n int) (a, b netip.Addr, err error) {
	const subnets = 1 << 15
	used, err := net.InterfaceAddrs()
	if err != nil {
		return a, b, fmt.Errorf("find free addresses: %w", err)
	}
	for i := range subnets {
		base := uint32(198<<24|18<<16) + uint32((os.Getpid()*61+n+i)%subnets)<<2
		address := func(host uint32) netip.Addr {
			v := base + host
			return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
		}
		a, b = address(1), address(2)
		taken := false
		for _, u := range used {
			if has, ok := u.(*net.IPNet); ok && has.Contains(a.AsSlice()) {
				taken = true
			}
		}
		if !taken {
			return a, b, nil
		}
	}
	return a, b, errors.New("all addresses for links are taken")
}

// Sweep removes the namespaces and rules of links whose process is gone.
func Sweep(ctx context.Context) error {
	var errs []error
	entries, err := os.ReadDir(namespaceDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look for old links: %w", err)
	}
	for _, e := range entries {
		if abandoned(e.Name()) {
			if err := ip(ctx, "netns", "del", e.Name()); err != nil {
				if _, gone := os.Stat(namespaceDir + "/" + e.Name()); gone == nil {
					errs = append(errs, err) // or another one swept it
				}
			}
		}
	}
	if _, err := exec.LookPath("iptables"); err != nil {
		return errors.Join(errs...)
	}
	for _, table := range []string{"filter", "nat"} {
		out, err := exec.CommandContext(ctx, "iptables", "-w", "10", "-t", table, "-S").Output()
		if err != nil {
			continue // the kernel has no such table: then there are no rules
		}
		for line := range strings.Lines(string(out)) {
			words := strings.Fields(strings.ReplaceAll(line, `"`, ""))
			for i, word := range words {
				if word == "--comment" && i+1 < len(words) && abandoned(words[i+1]) && words[0] == "-A" {
					_ = iptables(ctx, "-D", append([]string{table}, words[1:]...)) // another one may have done it
				}
			}
		}
	}
	return errors.Join(errs...)
}

// abandoned says that a name is of a link whose process is gone.
func abandoned(name string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	if !ours {
		return false
	}
	digits, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(digits)
	return err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
