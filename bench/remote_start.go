package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/bootstrap"
)

// firstLine is a script that shows when it runs.
const firstLine = "#!/bin/sh\n: >started\n"

// measureRemoteStart times how long it takes to a script's first line: on a node
// that has nothing but an SSH server, from the start of that server, while the link
// dials already; on one whose worker runs, from opening the link; and on one to which
// the link is up, from asking for the run.
func measureRemoteStart(ctx context.Context, b *bench) (err error) {
	if _, err := exec.LookPath(sshd); err != nil {
		b.report.skip("a first line", err.Error())
		return nil
	}
	image, remove, err := b.imageAtHand(ctx)
	if err != nil {
		b.report.skip("a first line in a container", err.Error())
	}
	defer func() { err = errors.Join(err, remove()) }()
	for _, in := range []struct{ what, image string }{{"a process", ""}, {"a container, image at hand", image}} {
		if in.what != "a process" && in.image == "" {
			continue
		}
		var cold, warm, kept series
		for range b.size.starts {
			if err := b.remoteStarts(ctx, in.image, &cold, &warm, &kept); err != nil {
				return fmt.Errorf("%s: %w", in.what, err)
			}
		}
		b.report.add("first line of "+in.what+": cold node, from the start of sshd, median", milliseconds(cold.median()), "ms", under(2000), cold.spread())
		warmAim := under(100)
		if in.image != "" {
			warmAim = aim{} // the engine makes a container each time
		}
		b.report.add("first line of "+in.what+": warm node, from opening the link, median", milliseconds(warm.median()), "ms", warmAim, warm.spread())
		b.report.add("first line of "+in.what+": warm node, link up, median", milliseconds(kept.median()), "ms", warmAim, kept.spread())
	}
	return nil
}

func (b *bench) remoteStarts(ctx context.Context, image string, cold, warm, kept *series) (err error) {
	r, err := b.newNodes(ctx, nil, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(); err != nil {
		return err
	}
	begin := time.Now()
	if err := r.startServers(ctx); err != nil {
		return err
	}
	for _, took := range []*series{cold, kept, warm} {
		switch took {
		case kept:
			begin = time.Now()
		case warm:
			if _, err := r.ask(request{Op: "leave"}); err != nil {
				return err
			}
			begin = time.Now()
			if err := r.open(); err != nil {
				return err
			}
		}
		began, err := r.firstLine(image)
		if err != nil {
			return err
		}
		*took = append(*took, began.Sub(begin))
	}
	return nil
}

// firstLine runs a script, as soon as the link is up, waits for its end, and
// tells when it began.
func (r *remote) firstLine(image string) (began time.Time, err error) {
	r.runs++
	run := fmt.Sprintf("bench.%d", r.runs)
	if _, err := r.ask(request{Op: "start", Run: run, Script: firstLine, Image: image}); err != nil {
		return began, err
	}
	path := filepath.Join(r.path(r.nodes[0].Name), "runs", run, "work", "started")
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Microsecond) {
		_, err := os.Stat(path)
		began = time.Now()
		if err == nil {
			break
		}
		if began.After(end) {
			return began, fmt.Errorf("run %s does not begin within %s", run, patience)
		}
	}
	_, err = r.ask(request{Op: "ended", Run: run})
	return began, err
}

// imageAtHand makes an image of a static shell in the local engine.
func (b *bench) imageAtHand(ctx context.Context) (name string, remove func() error, err error) {
	remove = func() error { return nil }
	shell, err := exec.LookPath("busybox")
	if err != nil {
		return "", remove, err //nolint:wrapcheck // says what
	}
	content, err := os.ReadFile(shell) //nolint:gosec // of the system
	if err != nil {
		return "", remove, err //nolint:wrapcheck // says what
	}
	name = fmt.Sprintf("skyport-bench:%d", os.Getpid())
	cmd := exec.CommandContext(ctx, "docker", "import", "--change", "LABEL skyport.bench=1", "--change", "ENV PATH=/bin", "-", name)
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", remove, fmt.Errorf("make an image: %w", err)
	}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return "", remove, fmt.Errorf("make an image: %w", err)
	}
	w := tar.NewWriter(in)
	for _, file := range []string{"bin/busybox", "bin/sh"} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: file, Mode: 0o755, Size: int64(len(content))}))
		_, failed := w.Write(content)
		err = errors.Join(err, failed)
	}
	if err = errors.Join(err, w.Close(), in.Close(), cmd.Wait()); err != nil {
		return "", remove, fmt.Errorf("make an image: %w: %s", err, skyport.Abbreviate(said.String(), 300))
	}
	return name, func() error {
		if out, err := exec.Command("docker", "image", "rm", "-f", name).CombinedOutput(); err != nil {
			return fmt.Errorf("remove the image %s: %w: %s", name, err, out)
		}
		return nil
	}, nil
}

// measureRemoteMany times how long many nodes of one partition take, from servers
// that listen to workers that answer. All share this machine's processors.
func measureRemoteMany(ctx context.Context, b *bench) error {
	if _, err := exec.LookPath(sshd); err != nil {
		b.report.skip("many nodes", err.Error())
		return nil
	}
	var all series
	for range min(b.size.rounds, 2) {
		took, err := b.remoteMany(ctx)
		if err != nil {
			return err
		}
		all = append(all, took)
	}
	b.report.add(fmt.Sprintf("%d cold nodes in one partition, from sshd to ready, median", b.size.many), all.median().Seconds(), "s", under(10),
		all.spread()+"; all nodes are this machine, without a shared directory")
	return nil
}

func (b *bench) remoteMany(ctx context.Context) (took time.Duration, err error) {
	r, err := b.newNodes(ctx, nil, b.size.many)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.startServers(ctx); err != nil {
		return 0, err
	}
	begin := time.Now()
	err = r.up()
	return time.Since(begin), err
}

// joining is what a node runs to reach the others: as bootstrap.Join, but the
// nodes are one machine with many ports, and share no directory.
func joining(nodes []skyport.Node, keys *bootstrap.Keys, i int) string {
	var config, known strings.Builder
	dir := ""
	for k, n := range nodes {
		at, err := url.Parse(n.Endpoint)
		if err != nil {
			return "exit 1\n"
		}
		if k == i {
			dir = at.Path + "/ssh"
		}
		fmt.Fprintf(&config, "Host %s\n\tHostName %s\n\tPort %s\n\tUser %s\n", n.Name, at.Hostname(), at.Port(), at.User.Username())
		fmt.Fprintf(&known, "[%s]:%s %s\n", at.Hostname(), at.Port(), keys.Hosts[k].Public)
	}
	fmt.Fprintf(&config, "Host *\n\tIdentitiesOnly yes\n\tIdentityFile %[1]s/id_ed25519\n\tUserKnownHostsFile %[1]s/known_hosts\n\tStrictHostKeyChecking yes\n", dir)
	var script strings.Builder
	fmt.Fprintf(&script, "set -e\nmkdir -p %[1]s\ncd %[1]s\n", quoted(dir))
	for _, file := range []struct{ name, text string }{
		{"id_ed25519", string(keys.Inner.Private)}, {"known_hosts", known.String()}, {"config", config.String()},
	} {
		fmt.Fprintf(&script, "cat >%s <<'END'\n%sEND\n", file.name, file.text)
	}
	return script.String()
}
