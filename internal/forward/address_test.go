package forward

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/openworkload/skyport"
)

func TestParseAddresses(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"": "127.0.0.0/8", "192.0.2.7": "192.0.2.7/32", "192.0.2.130/25": "192.0.2.128/25", "::ffff:192.0.2.7": "192.0.2.7/32",
		"fd00::/64": "fd00::/64", "fd00::1": "fd00::1/128",
		"localhost": "", "192.0.2.0/33": "", "192.0.2": "", "fe80::1%lo": "", "0.0.0.0": "", "::": "", "224.0.0.1": "",
	} {
		got, err := ParseAddresses(setting)
		if want == "" {
			if skyport.CodeOf(err) != skyport.CodeInvalid || skyport.HintOf(err) == "" {
				t.Errorf("%q: %v", setting, err)
			}
			continue
		}
		if err != nil || got.prefix.String() != want {
			t.Errorf("%q: %v, %v; want %s", setting, got.prefix, err, want)
		}
	}
}

func TestAddressIsLoopbackOfItsOwnAndStable(t *testing.T) {
	t.Parallel()
	all, err := ParseAddresses("")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		used := map[string]bool{}
		first := map[skyport.JobID]string{}
		for range rapid.IntRange(1, 50).Draw(t, "jobs") {
			id := skyport.JobID(rapid.StringMatching(`[0-9a-f]{8}-0000-4000-8000-[0-9a-f]{12}`).Draw(t, "id"))
			if first[id] != "" {
				continue
			}
			address, err := all.For(id, func(a string) bool { return used[a] })
			if err != nil {
				t.Fatal(err)
			}
			again, _ := all.For(id, func(a string) bool { return used[a] })
			if address != again || used[address] {
				t.Fatalf("%s: %s, then %s", id, address, again)
			}
			addr := netip.MustParseAddr(address)
			b := addr.As4()
			if !addr.IsLoopback() || b[1] == 0 || b[1] == 255 || b[3] == 0 || b[3] == 255 || address == "127.53.53.53" {
				t.Fatalf("%s is not free for use", address)
			}
			used[address], first[id] = true, address
		}
	})
}

func TestAddressesOfRangeRunOut(t *testing.T) {
	t.Parallel()
	for setting, count := range map[string]int{"192.0.2.0/28": 14, "192.0.2.0/31": 2, "fd00::/124": 14, "127.3.2.0/24": 254} {
		all, err := ParseAddresses(setting)
		if err != nil {
			t.Fatal(err)
		}
		used := map[string]bool{}
		for range count {
			address, err := all.For(skyport.NewJobID(), func(a string) bool { return used[a] })
			if err != nil {
				t.Fatalf("%s after %d: %v", setting, len(used), err)
			}
			if used[address] || !all.prefix.Contains(netip.MustParseAddr(address)) {
				t.Fatalf("%s: got %s", setting, address)
			}
			used[address] = true
		}
		if _, err := all.For(skyport.NewJobID(), func(a string) bool { return used[a] }); skyport.CodeOf(err) != skyport.CodeUnavailable || !strings.Contains(err.Error(), setting) {
			t.Fatalf("%s: %v", setting, err)
		}
	}
	fixed, _ := ParseAddresses("192.0.2.7")
	if a, err := fixed.For(skyport.NewJobID(), func(string) bool { return true }); a != "192.0.2.7" || err != nil {
		t.Fatal(a, err)
	}
}
