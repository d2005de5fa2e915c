package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
)

type flavorsOptions struct {
	site     string
	gpu      bool
	spot     bool
	maxPrice float64
	limited  bool // maxPrice counts
}

func newFlavorsCommand(a *app) *cobra.Command {
	var opts flavorsOptions
	cmd := &cobra.Command{
		Use:   "flavors [flags]",
		Short: "List the kinds of nodes, with prices",
		Long: `List the flavors that nodes can have at the sites. Prices are for a node and
hour, in the site's currency; ? is a price that the site does not tell. SPOT is
the price of nodes that the site may take back (#SWM spot).`,
		Example:           lines("skyport flavors", "skyport flavors --site local --json", "skyport flavors --gpu --spot --max-price 2.5"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.limited = cmd.Flags().Changed("max-price")
			return runFlavors(cmd.Context(), a, opts)
		},
	}
	siteFlag(a, cmd, &opts.site)
	cmd.Flags().BoolVar(&opts.gpu, "gpu", false, "only with GPUs")
	cmd.Flags().BoolVar(&opts.spot, "spot", false, "only those to be had as spot, by their spot price")
	cmd.Flags().Float64Var(&opts.maxPrice, "max-price", 0, "only those known to cost at most this `PRICE` per hour")
	return cmd
}

// siteFlag is the flag that restricts a list to one site.
func siteFlag(a *app, cmd *cobra.Command, site *string) {
	cmd.Flags().StringVar(site, "site", "", "only at this `SITE`")
	completeOn(cmd, "site", a.completeSites())
}

// atSite keeps what is at a site; an empty site keeps all.
func atSite[T any](all []T, site string, siteOf func(T) string) []T {
	kept := slices.DeleteFunc(slices.Clone(all), func(v T) bool { return site != "" && siteOf(v) != site })
	return list(kept)
}

func runFlavors(ctx context.Context, a *app, opts flavorsOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	flavors, err := c.Flavors(ctx)
	if err != nil {
		return err
	}
	flavors = slices.DeleteFunc(atSite(flavors, opts.site, func(f skyport.Flavor) string { return f.Site }), func(f skyport.Flavor) bool {
		cost, known := f.Price, !f.Unpriced
		if opts.spot {
			cost, known = f.SpotPrice, true
		}
		return opts.gpu && f.GPUs == 0 || opts.spot && f.SpotPrice == 0 || opts.limited && (!known || cost > opts.maxPrice)
	})
	if a.JSON {
		return a.printJSON(flavors)
	}
	sites, err := c.Sites(ctx)
	if err != nil {
		return err
	}
	currency := map[string]string{}
	for _, s := range sites {
		currency[s.Name] = s.Currency
	}
	t := table{
		columns: []column{
			{title: "FLAVOR"},
			{title: "SITE"},
			{title: "CPUS", right: true},
			{title: "MEMORY", right: true},
			{title: "GPUS", right: true, rank: 1},
			{title: "STORAGE", right: true, rank: 2},
			{title: "ARCH", rank: 3},
			{title: "PRICE", right: true},
			{title: "SPOT", right: true, rank: 1},
		},
		empty: "No flavors.",
	}
	for _, f := range flavors {
		t.add(text(f.Name), text(f.Site), text(strconv.Itoa(f.CPUs)), text(f.Memory.String()),
			text(gpus(f)), text(f.Storage.String()), text(f.Arch), text(flavorPrice(f, currency[f.Site])), text(spotPrice(f, currency[f.Site])))
	}
	t.print(a.Out)
	return a.Out.failed()
}

// gpus spells how many GPUs a flavor has, and which.
func gpus(f skyport.Flavor) string {
	if f.GPUs == 0 || f.GPUModel == "" {
		return strconv.Itoa(f.GPUs)
	}
	return strconv.Itoa(f.GPUs) + "× " + f.GPUModel
}

// flavorPrice spells a flavor's price per hour in its site's currency.
func flavorPrice(f skyport.Flavor, currency string) string {
	if f.Unpriced {
		return "?"
	}
	return priceIn(f.Price, currency)
}

func spotPrice(f skyport.Flavor, currency string) string {
	if f.SpotPrice == 0 {
		return "-"
	}
	return priceIn(f.SpotPrice, currency)
}

// priceIn spells a price per hour in a currency, where one is known.
func priceIn(p float64, currency string) string {
	if p == 0 || currency == "" {
		return price(p)
	}
	return fmt.Sprintf("%.4g %s/h", p, currency)
}
