package schedule_test

import (
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/schedule"
)

// cloudy is the world with far as a cloud: its small and big can be had as spot,
// and it has an arm flavor that is the cheapest of all, and one of no known price.
func cloudy() schedule.Snapshot {
	s := world()
	for i := range s.Flavors {
		f := &s.Flavors[i]
		f.Arch = "amd64"
		if f.Site == "far" && f.GPUs == 0 {
			f.SpotPrice = f.Price / 4
		}
	}
	s.Sites[1].DefaultFlavor = "small"
	arm, mystery := flavor("far", "arm", 2, 4, 0.1), flavor("far", "mystery", 64, 512, 0)
	arm.Arch, mystery.Arch, mystery.Unpriced = "arm64", "amd64", true
	s.Flavors = append(s.Flavors, arm, mystery)
	return s
}

func TestSpot(t *testing.T) {
	t.Parallel()
	refuse := func(s *schedule.Snapshot, offers ...schedule.Offer) {
		for _, o := range offers {
			s.Refused[o] = schedule.Refusal{Until: now.Add(time.Minute), Reason: "none left"}
		}
	}
	for name, test := range map[string]struct {
		request skyport.Request
		change  func(*schedule.Snapshot)
		flavor  string
		spot    bool
		price   float64
		reason  string
	}{
		"no is the default":                      {flavor: "near/small", price: 1},
		"yes takes spot only":                    {request: skyport.Request{Spot: skyport.SpotYes}, flavor: "far/small", spot: true, price: 0.5},
		"yes with nothing to be had":             {request: skyport.Request{Spot: skyport.SpotYes, Site: "near"}, reason: "nothing that fits is to be had as spot at site near"},
		"prefer takes spot though it is dearer":  {request: skyport.Request{Spot: skyport.SpotPrefer, CPUs: 8}, flavor: "far/big", spot: true, price: 2},
		"prefer takes on demand where no spot":   {request: skyport.Request{Spot: skyport.SpotPrefer, Site: "near"}, flavor: "near/small", price: 1},
		"the price of spot counts for max-price": {request: skyport.Request{Spot: skyport.SpotYes, MaxPrice: 0.5}, flavor: "far/small", spot: true, price: 0.5},
		"prefer goes on demand when spot is refused": {
			request: skyport.Request{Spot: skyport.SpotPrefer, CPUs: 8, Site: "far"}, flavor: "far/big", price: 8,
			change: func(s *schedule.Snapshot) { refuse(s, schedule.Offer{Site: "far", Flavor: "big", Spot: true}) },
		},
		"a refused flavor leads to the next one": {
			request: skyport.Request{Site: "far"}, flavor: "far/big", price: 8,
			change: func(s *schedule.Snapshot) { refuse(s, schedule.Offer{Site: "far", Flavor: "small"}) },
		},
		"a refused site leads to the next one": {
			flavor: "far/small", price: 2,
			change: func(s *schedule.Snapshot) { refuse(s, schedule.Offer{Site: "near"}) },
		},
		"what is refused to many nodes may be had by few": {
			request: skyport.Request{Site: "far"}, flavor: "far/small", price: 2,
			change: func(s *schedule.Snapshot) {
				s.Refused[schedule.Offer{Site: "far", Flavor: "small"}] = schedule.Refusal{Until: now.Add(time.Minute), Nodes: 2}
			},
		},
		"and is refused to more": {
			request: skyport.Request{Site: "far", Nodes: 3}, flavor: "far/big", price: 8,
			change: func(s *schedule.Snapshot) {
				s.Refused[schedule.Offer{Site: "far", Flavor: "small"}] = schedule.Refusal{Until: now.Add(time.Minute), Nodes: 2}
			},
		},
		"refused everywhere": {
			reason: "none left",
			change: func(s *schedule.Snapshot) { refuse(s, schedule.Offer{Site: "near"}, schedule.Offer{Site: "far"}) },
		},
		"another architecture only by name":  {request: skyport.Request{Site: "far"}, flavor: "far/small", price: 2},
		"another architecture by name":       {request: skyport.Request{Flavor: "arm"}, flavor: "far/arm", price: 0.1},
		"of no known price comes last":       {request: skyport.Request{CPUs: 2, Site: "far", Spot: skyport.SpotNo}, flavor: "far/small", price: 2},
		"of no known price when it must be":  {request: skyport.Request{CPUs: 64}, flavor: "far/mystery"},
		"of no known price is above any max": {request: skyport.Request{CPUs: 64, MaxPrice: 1000}, reason: "has no known price"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := cloudy()
			if test.change != nil {
				test.change(&s)
			}
			s.Jobs = []schedule.Job{job(1, test.request)}
			d := schedule.Decide(s)
			if test.reason != "" {
				if len(d.Create) != 0 || !strings.Contains(d.Reasons[jobID(1)], test.reason) {
					t.Fatalf("created %v; stays because %q, want %q", d.Create, d.Reasons[jobID(1)], test.reason)
				}
				return
			}
			if len(d.Create) != 1 {
				t.Fatalf("created %v; reasons %v", d.Create, d.Reasons)
			}
			if c := d.Create[0]; c.Site+"/"+c.Flavor.Name != test.flavor || c.Spot != test.spot || c.Flavor.Price != test.price {
				t.Errorf("created %s/%s, spot %v, for %v", c.Site, c.Flavor.Name, c.Spot, c.Flavor.Price)
			}
		})
	}
}

// A job that must not lose its nodes is not put onto spot ones, nor the other
// way round.
func TestSpotPartitionsAreForThoseWhoAskedForThem(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		asks skyport.Spot
		spot bool
		want bool
	}{
		{"", false, true},
		{"", true, false},
		{skyport.SpotYes, false, false},
		{skyport.SpotYes, true, true},
		{skyport.SpotPrefer, false, true},
		{skyport.SpotPrefer, true, true},
	} {
		s := cloudy()
		p := partitionOf{id: "a", state: skyport.PartitionReady}.at("far", "small")
		p.Spot = test.spot
		s.Partitions = []schedule.Partition{p}
		s.Jobs = []schedule.Job{job(1, skyport.Request{Spot: test.asks, Site: "far"})}
		if d := schedule.Decide(s); (len(d.Place) == 1) != test.want {
			t.Errorf("spot %q onto a partition with spot %v: placed %v", test.asks, test.spot, d.Place)
		}
	}
}
