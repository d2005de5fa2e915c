package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
)

type imagesOptions struct{ site string }

func newImagesCommand(a *app) *cobra.Command {
	var opts imagesOptions
	cmd := &cobra.Command{
		Use:   "images [flags]",
		Short: "List what nodes boot and what jobs run in",
		Long: `List the images of the sites: cloud images, which nodes boot, and container
images, which jobs run in, as far as the sites know them.`,
		Example:           lines("skyport images", "skyport images --site local"),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runImages(cmd.Context(), a, opts) },
	}
	siteFlag(a, cmd, &opts.site)
	return cmd
}

func runImages(ctx context.Context, a *app, opts imagesOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	images, err := c.Images(ctx)
	if err != nil {
		return err
	}
	images = atSite(images, opts.site, func(i skyport.Image) string { return i.Site })
	if a.JSON {
		return a.printJSON(images)
	}
	t := table{
		columns: []column{{title: "IMAGE"}, {title: "SITE"}, {title: "KIND"}, {title: "ARCH", rank: 1}, {title: "COMMENT", flex: true}},
		empty:   "No images.",
	}
	for _, i := range images {
		t.add(text(i.Name), text(i.Site), text(string(i.Kind)), text(i.Arch), text(i.Comment))
	}
	t.print(a.Out)
	return a.Out.failed()
}
