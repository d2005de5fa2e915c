package schedule_test

import (
	"strings"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/schedule"
)

func TestStoragesAreWhereTheirSitesAre(t *testing.T) {
	t.Parallel()
	s := world()
	s.Sites[1].Storages = []string{"refdata"}
	s.Jobs = []schedule.Job{
		job(1, skyport.Request{}), job(2, skyport.Request{Storage: "refdata"}), job(3, skyport.Request{Storage: "other"}),
		job(4, skyport.Request{Storage: "refdata", Site: "near"}),
	}
	d := schedule.Decide(s)
	sites := map[skyport.JobID]string{}
	for _, c := range d.Create {
		for _, id := range c.Jobs {
			sites[id] = c.Site
		}
	}
	if sites[jobID(1)] != "near" || sites[jobID(2)] != "far" || len(sites) != 2 {
		t.Errorf("the jobs go to %v; reasons %v", sites, d.Reasons)
	}
	for _, id := range []skyport.JobID{jobID(3), jobID(4)} {
		if !strings.Contains(d.Reasons[id], "has a storage") {
			t.Errorf("%s stays because %q", id, d.Reasons[id])
		}
	}
	_, err := schedule.Offers(&skyport.Request{Storage: "other"}, "lab", s.Accounts, s.Sites, s.Flavors)
	if skyport.CodeOf(err) != skyport.CodeUnsatisfiable || skyport.HintOf(err) != "site far has refdata" {
		t.Errorf("an unknown storage: %v (%s)", err, skyport.HintOf(err))
	}
}

// A partition that is there serves a job with a storage only at such a site.
func TestStoragesOnPartitionsThatAreThere(t *testing.T) {
	t.Parallel()
	for _, site := range []string{"near", "far"} {
		s := world()
		s.Sites[1].Storages = []string{"refdata"}
		s.Partitions = []schedule.Partition{partitionOf{id: "p", state: skyport.PartitionReady}.at(site, "small")}
		s.Jobs = []schedule.Job{job(1, skyport.Request{Storage: "refdata"})}
		d := schedule.Decide(s)
		if placed := len(d.Place) == 1; placed != (site == "far") {
			t.Errorf("at %s: placed %v, created %v, reasons %v", site, d.Place, d.Create, d.Reasons)
		}
	}
}
