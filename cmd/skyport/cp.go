package main

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

func newCpCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cp SRC DST",
		Short: "Copy files to or from a job while it runs",
		Long: `Copy a file or a directory to or from the work directory of a job, while the job
is on its nodes. One of SRC and DST is JOB:PATH, with a path relative to the
work directory; the other one is on this machine (./a:b for a name with a
colon). A DST that ends in / or is a directory here is copied into; otherwise
the copy gets the name DST. Directories are copied with all that is in them; in
a directory that is there already files of the same names are replaced, each as
a whole, and others stay. What is there already is not sent again, and a lost
connection is continued.

` + jobHelp,
		Example: lines(
			"skyport cp @last:checkpoints/best.pt .",
			"skyport cp params.yaml 1a2b:",
			"skyport cp data 1a2b:inputs/",
			"skyport cp 1a2b:. everything",
		),
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 1 || strings.ContainsAny(word, "/.:") {
				return nil, cobra.ShellCompDirectiveDefault
			}
			words, _ := a.completeJobs(skyport.JobRunning, skyport.JobTransferring)(cmd, nil, word)
			for i, w := range words {
				id, about, _ := strings.Cut(w, "\t")
				words[i] = id + ":\t" + about
			}
			return words, cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runCp(cmd.Context(), a, args[0], args[1]) },
	}
}

func runCp(ctx context.Context, a *app, src, dst string) error {
	fromJob, from, isFrom := splitRemote(src)
	toJob, to, isTo := splitRemote(dst)
	if isFrom == isTo {
		return usagef("one of %s and %s must be JOB:PATH, the other a path of this machine", src, dst)
	}
	var err error
	if isFrom {
		from, err = inWorkDirectory(from)
	} else {
		_, err = inWorkDirectory(to)
	}
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	job, err := findJob(ctx, c, fromJob+toJob)
	if err != nil {
		return err
	}
	bar := a.newProgress("copy")
	progress := func(t skyport.Transfer) { bar.update(t.Done, t.Total) }
	var moved skyport.Transfer
	if isFrom {
		moved, err = copyHere(ctx, c, job.ID, from, dst, progress)
	} else {
		moved, err = copyThere(ctx, c, job.ID, src, to, progress)
	}
	bar.end(err == nil)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(moved)
	}
	a.Out.printf("%s, %s\n", count(moved.Files, "file"), moved.Total)
	return a.Out.failed()
}

// splitRemote takes JOB:PATH apart. As with scp, a colon behind a slash is one
// of a file's name.
func splitRemote(arg string) (job, path string, remote bool) {
	job, path, remote = strings.Cut(arg, ":")
	if !remote || job == "" || strings.Contains(job, "/") {
		return "", arg, false
	}
	return job, path, true
}

// inWorkDirectory cleans a path of a job, which must not lead out.
func inWorkDirectory(name string) (string, error) {
	clean := path.Clean(name)
	if !filepath.IsLocal(clean) {
		return "", usagef("%q is not below the work directory of the job: give a path relative to it", skyport.Abbreviate(name, 100))
	}
	return clean, nil
}

func copyHere(ctx context.Context, c *client.Client, id skyport.JobID, from, dst string, progress func(skyport.Transfer)) (skyport.Transfer, error) {
	info, err := os.Stat(dst)
	if from == "." || strings.HasSuffix(dst, "/") || err == nil && info.IsDir() {
		return c.CopyFrom(ctx, id, from, dst, "", progress)
	}
	return c.CopyFrom(ctx, id, from, filepath.Dir(dst), filepath.Base(dst), progress)
}

func copyThere(ctx context.Context, c *client.Client, id skyport.JobID, src, to string, progress func(skyport.Transfer)) (skyport.Transfer, error) {
	info, err := os.Stat(src)
	if err != nil {
		return skyport.Transfer{}, skyport.Errorf(skyport.CodeInputUnreadable, "copy %s: %w", src, err)
	}
	clean := path.Clean(to)
	if clean == "." || strings.HasSuffix(to, "/") {
		return c.CopyTo(ctx, id, src, clean, "", progress)
	}
	moved, err := c.CopyTo(ctx, id, src, path.Dir(clean), path.Base(clean), progress)
	if err != nil && skyport.CodeOf(err) == skyport.CodeConflict && !info.IsDir() {
		// Perhaps a directory is there: then the file goes into it.
		if into, again := c.CopyTo(ctx, id, src, clean, "", progress); again == nil {
			return into, nil
		}
	}
	return moved, err
}
