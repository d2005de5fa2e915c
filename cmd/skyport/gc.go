package main

import (
	"context"

	"github.com/spf13/cobra"
)

type gcOptions struct {
	site   string
	dryRun bool
}

func newGCCommand(a *app) *cobra.Command {
	var opts gcOptions
	cmd := &cobra.Command{
		Use:   "gc [flags]",
		Short: "Remove what is left at sites and belongs to nothing",
		Long: `Compare what the sites have with what core knows, by the owner's tag, and remove
what belongs to nothing: what core does not know, or knows to be removed. What
carries another owner's tag is never touched. Core does this by itself from time
to time; this does it now, and says what it found and why.`,
		Example:           lines("skyport gc --dry-run", "skyport gc --site azure-weu"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runGC(cmd.Context(), a, opts) },
	}
	siteFlag(a, cmd, &opts.site)
	cmd.Flags().BoolVar(&opts.dryRun, "dry-run", false, "only tell, remove nothing")
	return cmd
}

func runGC(ctx context.Context, a *app, opts gcOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	orphans, err := c.Sweep(ctx, opts.site, opts.dryRun)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(list(orphans))
	}
	t := table{
		columns: []column{
			{title: "SITE"}, {title: "NAME"}, {title: "PARTITION"}, {title: "AGE", right: true}, {title: "REMOVED"}, {title: "WHY", flex: true},
		},
		empty: "Nothing is left over.",
	}
	now := a.Now()
	for _, o := range orphans {
		removed := "no"
		if o.Removed {
			removed = "asked for"
		}
		t.add(text(o.Site), text(o.Name), text(o.Partition.Short()), text(age(o.Since, now)), text(removed), text(o.Reason))
	}
	t.print(a.Out)
	return a.Out.failed()
}
