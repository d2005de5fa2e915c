package skyport

import "time"

// Directive is a keyword with its argument, as a line of the script would say it.
type Directive struct {
	Keyword string `json:"keyword" doc:"Word of the directive, such as flavor"`
	Value   string `json:"value" doc:"Its argument"`
}

// Plan is what core would do with a submission now: the normalised request
// and the place it would go to.
type Plan struct {
	Request   Request     `json:"request"`
	Site      string      `json:"site,omitempty"`
	Flavor    string      `json:"flavor,omitempty"`
	Nodes     int         `json:"nodes"`
	Price     float64     `json:"price" doc:"Per hour, all nodes"`
	Currency  string      `json:"currency,omitempty" doc:"Of the price; empty: the site does not say"`
	Unpriced  bool        `json:"unpriced,omitempty" doc:"The site does not tell the price: 0 does not mean free"`
	MostCost  float64     `json:"most_cost,omitempty" doc:"The price for as long as the time limit: what the script costs at most. Booting, transfers and removal come on top"`
	Partition PartitionID `json:"partition,omitempty" doc:"Set when a partition that exists would be used"`
	Reason    string      `json:"reason,omitempty" doc:"Why the job would wait, when it would"`
}

// Orphan is something at a site that the store does not know, or that should
// be gone and is not.
type Orphan struct {
	Site      string      `json:"site"`
	Partition PartitionID `json:"partition"`
	Name      string      `json:"name"`
	Reason    string      `json:"reason,omitempty" doc:"Why it should not be there, for people"`
	Since     time.Time   `json:"since" doc:"When it was made"`
	Lease     time.Time   `json:"lease,omitzero" doc:"When the gate would have removed it"`
	Removed   bool        `json:"removed" doc:"Its removal was asked for"`
}
