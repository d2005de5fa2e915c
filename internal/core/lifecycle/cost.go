package lifecycle

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/cost"
	"github.com/openworkload/skyport/internal/core/store"
)

// asked writes that the site is asked for the partition: from now on it costs.
func (p *partition) asked(tx *store.Tx, row *skyport.Partition) error {
	meter := cost.Meter{
		Partition: row.ID, Account: row.Account, Site: row.Site, Flavor: row.Flavor.Name, Spot: row.Spot, Nodes: len(row.Nodes),
		Currency: p.e.currency(row.Site), Price: cost.PriceOf(row.Flavor.Price), Unpriced: row.Flavor.Unpriced,
	}
	if err := tx.StartMeter(&meter); err != nil {
		return err
	}
	if err := tx.MovePartition(row, skyport.PartitionCreating, skyport.DetailsPartitionNotYet); err != nil {
		return err
	}
	return p.tellWaiting(tx, skyport.DetailsPartitionNotYet)
}

// currency is that of a site, "" when it does not say.
func (e *Engine) currency(site string) string {
	sites := e.Catalog.Sites()
	if at := slices.IndexFunc(sites, func(s skyport.Site) bool { return s.Name == site }); at >= 0 {
		return sites[at].Currency
	}
	return ""
}

// costCollector shows what was spent as Prometheus metrics, counted when asked.
type costCollector struct {
	e           *Engine
	cost, spent *prometheus.Desc
}

// scrapeLimit bounds how long a look at the costs may take.
const scrapeLimit = 5 * time.Second

// NewCostCollector makes the metrics of costs: skyport_cost_total (by account,
// site and currency) and skyport_budget_used_ratio (by account).
func NewCostCollector(e *Engine) prometheus.Collector {
	return &costCollector{
		e: e,
		cost: prometheus.NewDesc("skyport_cost_total", "What partitions have cost, running ones included, in units of the currency.",
			[]string{"account", "site", "currency"}, nil),
		spent: prometheus.NewDesc("skyport_budget_used_ratio", "Part of an account's budget that is spent; 1 is all of it.", []string{"account"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *costCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.cost
	out <- c.spent
}

// Collect implements prometheus.Collector.
func (c *costCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	settled, live, err := c.e.Store.SpendingBySite(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.cost, err)
		return
	}
	now := time.Now()
	sums := map[[3]string]float64{}
	for _, s := range settled {
		sums[[3]string{s.Account, s.Site, s.Currency}] += s.Amount.Float()
	}
	for i := range live {
		m := &live[i]
		sums[[3]string{m.Account, m.Site, m.Currency}] += m.Between(time.Time{}, now).Float()
	}
	for key, amount := range sums {
		out <- prometheus.MustNewConstMetric(c.cost, prometheus.CounterValue, amount, key[:]...)
	}
	for _, p := range c.e.Purses() {
		out <- prometheus.MustNewConstMetric(c.spent, prometheus.GaugeValue, p.Spent.Float()/p.Budget.Amount, p.Account)
	}
}
