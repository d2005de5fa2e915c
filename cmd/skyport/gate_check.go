package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/internal/spool"
)

type gateCheckOptions struct{ timeout time.Duration }

func newGateCheckCommand(a *app) *cobra.Command {
	var opts gateCheckOptions
	cmd := &cobra.Command{
		Use:   "check [flags] [SITE...]",
		Short: "Try whether the gate's sites are usable, and say what is missing",
		Long: `Try what making nodes at the sites will need: credentials, permissions, quotas,
flavors and images. Sites are those of gate.yaml; no gate needs to run, and
nothing is made. Without SITE all are tried, side by side.

Each line says ✓, ! (jobs run, but not all or not for long) or ✗ (no job can
run), and below what is not well the command that mends it. The exit code is 1
when a check fails. Credentials are looked for in this terminal's environment:
a gate that runs elsewhere may have others.`,
		Example:           lines("skyport gate check", "skyport gate check azure-weu campus", "skyport gate check --json | jq '.[] | select(.level != \"ok\")'"),
		ValidArgsFunction: a.completeGateSites,
		Args:              cobra.ArbitraryArgs,
		RunE:              func(cmd *cobra.Command, args []string) error { return runGateCheck(cmd.Context(), a, args, opts) },
	}
	cmd.Flags().DurationVar(&opts.timeout, "timeout", time.Minute, "how long each site has to answer")
	return cmd
}

// gateSite is a site of the gate that may be checked.
type gateSite struct {
	name, kind string
	cloud      *spool.CloudSite // nil: there is no check for its kind
}

// gateSites lists the sites of a spool's gate, by its configuration.
func gateSites(s *spool.Spool) ([]gateSite, error) {
	file, err := s.LoadGateFile()
	if err != nil {
		return nil, err
	}
	var all []gateSite
	for i, c := range file.Sites {
		all = append(all, gateSite{c.Name, c.Kind, &file.Sites[i]})
	}
	if s.Config.Local.Enabled {
		all = append(all, gateSite{name: "local", kind: "local"})
	}
	if s.Config.Docker.Enabled {
		all = append(all, gateSite{name: s.Config.Docker.Site, kind: "docker"})
	}
	for _, c := range s.Config.SSH {
		all = append(all, gateSite{name: c.Name, kind: "ssh"})
	}
	return all, nil
}

// completeGateSites completes names of sites that can be checked.
func (a *app) completeGateSites(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	s, err := spool.Open(a.Spool)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	file, err := s.LoadGateFile()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range file.Sites {
		names = append(names, c.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func runGateCheck(ctx context.Context, a *app, names []string, opts gateCheckOptions) error {
	if opts.timeout <= 0 {
		return usagef("--timeout %s: want a duration such as 1m", opts.timeout)
	}
	s, err := spool.Open(a.Spool)
	if err != nil {
		return err
	}
	sites, err := gateSites(s)
	if err != nil {
		return err
	}
	if sites, err = chosenSites(sites, names); err != nil {
		return err
	}
	findings := checkSites(ctx, sites, opts.timeout)
	if ctx.Err() != nil {
		return fmt.Errorf("check the sites: %w", ctx.Err())
	}
	if a.JSON {
		err = a.printJSON(list(slices.Concat(findings...)))
	} else {
		printFindings(a, s, sites, findings)
		err = a.Out.failed()
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(slices.Concat(findings...), func(f gate.Finding) bool { return f.Level == gate.LevelFailure }) {
		return endWith(exitFailure)
	}
	return nil
}

// chosenSites keeps the sites of these names; no names keep all.
func chosenSites(sites []gateSite, names []string) ([]gateSite, error) {
	if len(names) == 0 {
		return sites, nil
	}
	known := map[string]gateSite{}
	for _, site := range sites {
		known[site.name] = site
	}
	var chosen []gateSite
	for _, name := range names {
		site, ok := known[name]
		if !ok {
			return nil, skyport.Errorf(skyport.CodeUnknownSite, "the gate has no site %q", skyport.Abbreviate(name, 60)).
				WithHint("there are: %s", cmp.Or(strings.Join(slices.Sorted(maps.Keys(known)), ", "), "none"))
		}
		chosen = append(chosen, site)
	}
	return chosen, nil
}

// checkSites checks all sites side by side, each for at most a time.
func checkSites(ctx context.Context, sites []gateSite, limit time.Duration) [][]gate.Finding {
	findings := make([][]gate.Finding, len(sites))
	var checking sync.WaitGroup
	for i, site := range sites {
		if site.cloud == nil {
			continue
		}
		checking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			found, err := checkCloud(ctx, *site.cloud)
			if err != nil {
				text := err.Error()
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					text = fmt.Sprintf("no answer within %s: %v", limit, err)
				}
				found = append(found, gate.Finding{Subject: "site", Level: gate.LevelFailure, Text: text, Fix: skyport.HintOf(err)})
			}
			for i := range found {
				found[i].Site = site.name
			}
			findings[i] = found
		})
	}
	checking.Wait()
	return findings
}

// checkCloud opens a site as the gate would, without what works on its own.
func checkCloud(ctx context.Context, c spool.CloudSite) (found []gate.Finding, err error) {
	site, err := openCloud(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("open site %s: %w", c.Name, err)
	}
	defer func() { err = errors.Join(err, site.Close()) }()
	return cloud.Check(ctx, site, sourcesOf(c, site))
}

// printFindings shows the outcome to people, site by site.
func printFindings(a *app, s *spool.Spool, sites []gateSite, findings [][]gate.Finding) {
	subjects := 0
	for _, f := range slices.Concat(findings...) {
		subjects = max(subjects, width(oneLine(f.Subject), len(f.Subject)))
	}
	if !slices.ContainsFunc(sites, func(site gateSite) bool { return site.cloud != nil }) {
		a.Out.printf("There are no clouds to check: %s names them; skyport gate example shows how.\n", s.GateFile())
	}
	failed, doubtful := 0, 0
	for i, site := range sites {
		if site.cloud == nil {
			a.Out.printf("%s  %s\n  -  no check\n", a.Out.paint(bold, oneLine(site.name)), site.kind)
			continue
		}
		a.Out.printf("%s  %s\n", a.Out.paint(bold, oneLine(site.name)), strings.TrimSpace(site.kind+" "+oneLine(site.cloud.Region)))
		worst := gate.LevelOK
		for _, f := range findings[i] {
			printFinding(a, f, subjects)
			if f.Level == gate.LevelFailure || worst == gate.LevelOK {
				worst = f.Level
			}
		}
		switch worst {
		case gate.LevelFailure:
			failed++
		case gate.LevelWarning:
			doubtful++
		}
	}
	switch {
	case failed > 0:
		a.Out.printf("%s cannot be used.\n", count(failed, "site"))
	case doubtful > 0:
		a.Out.printf("%s can be used, but not for everything.\n", count(doubtful, "site"))
	}
}

func printFinding(a *app, f gate.Finding, subjects int) {
	mark, st := "✓", green
	switch f.Level {
	case gate.LevelWarning:
		mark, st = "!", yellow
	case gate.LevelFailure:
		mark, st = "✗", red
	}
	subject := oneLine(f.Subject)
	blanks := strings.Repeat(" ", max(0, subjects-width(subject, len(subject))))
	a.Out.printf("  %s  %s%s  %s\n", a.Out.paint(st, mark), subject, blanks, oneLine(f.Text))
	if f.Fix != "" {
		a.Out.printf("     %s  %s %s\n", strings.Repeat(" ", subjects), a.Out.paint(cyan, "mend:"), oneLine(f.Fix))
	}
}
