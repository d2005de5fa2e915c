package openstack

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// TestDescribe writes tags into descriptions and reads them again.
func TestDescribe(t *testing.T) {
	t.Parallel()
	id := skyport.NewPartitionID()
	spec := gate.PartitionSpec{
		ID: id, Owner: "core=a;b%\nc", Nodes: skyport.NodeNames(id, 2), Lease: time.Now(), Job: skyport.NewJobID(), User: strings.Repeat("u", 200),
	}
	want := cloud.TagsOf(spec)
	text := describe(with(want.Map(), markNode, "1", markMade, "yes", "team", strings.Repeat("x", 300)), descriptionRoom)
	if len(text) > 255 || strings.ContainsAny(text, "\n") {
		t.Errorf("%d bytes: %q", len(text), text)
	}
	marks := undescribe(text)
	got, ours, err := cloud.ParseTags(marks)
	want.User = "" // no room
	got.Job = want.Job
	if !ours || err != nil || got != want || marks[markNode] != "1" || marks[markMade] != "yes" {
		t.Errorf("read %+v, %v\nwant %+v", got, err, want)
	}
	again := undescribe(describe(marks, descriptionRoom))
	if !maps.Equal(marks, again) {
		t.Errorf("read %v\nthen %v", marks, again)
	}
	for _, foreign := range []string{"", "web server", "skyport", "Skyport: owner=x"} {
		if marks := undescribe(foreign); len(marks) > 0 {
			t.Errorf("%q reads as %v", foreign, marks)
		}
	}
}

// TestRetryAfter reads what services ask for.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-3": 0, "soon": 0, "99999999": 24 * time.Hour,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:03:05 GMT": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestRanges picks ranges that overlap with nothing.
func TestRanges(t *testing.T) {
	t.Parallel()
	c, err := New(Options{Name: "x", AuthURL: "http://127.0.0.1/v3", Password: "x"})
	if err != nil {
		t.Fatal(err)
	}
	s, ok := c.(*site)
	if !ok {
		t.Fatal(c)
	}
	others := []thing{{CIDR: "10.128.0.0/10"}, {CIDR: "10.10.0.0/24"}}
	for i := range 300 {
		nodes := 1 + i%2*300
		p, err := s.choose(skyport.NewPartitionID(), others, nodes, 0)
		if err != nil || p.Addr().As4()[1] < 192 {
			t.Fatal(p, err)
		}
		if last := addressOf(p, nodes-1); !p.Contains(last) {
			t.Errorf("node %d at %s is not in %s", nodes, last, p)
		}
		for _, other := range others {
			if other.CIDR != "10.128.0.0/10" && other.CIDR != "10.10.0.0/24" && other.CIDR == p.String() {
				t.Errorf("%s twice", p)
			}
		}
		others = append(others, thing{CIDR: p.String()})
	}
}
