package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/transfer"
)

// way is one way to bring a directory to another place.
type way struct {
	name string
	copy func(ctx context.Context, from, to string) error
	took series
}

// measureTransfer copies one big file of random bytes, and many small ones, by
// cp, by rsync and by the transfer of Sky Port: scan, push and commit, to a
// receiver in another process over a unix socket, as to a worker. The ways
// take turns; before each turn the disk is let finish what the last one left
// to it, which no way is charged for.
func measureTransfer(ctx context.Context, b *bench) (err error) {
	dir := filepath.Join(b.dir, "t")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := enoughDisk(b.dir, 3*b.size.big); err != nil {
		b.report.skip("transfers", err.Error())
		return nil
	}
	big, many := filepath.Join(dir, "big"), filepath.Join(dir, "many")
	if err := randomFile(filepath.Join(big, "file"), b.size.big); err != nil {
		return err
	}
	if err := manyFiles(many, b.size.files); err != nil {
		return err
	}
	size := skyport.Bytes(b.size.big)
	if err := b.race(ctx, dir, big, fmt.Sprintf("%s of random bytes in one file", size), b.size.big); err != nil {
		return err
	}
	return b.race(ctx, dir, many, fmt.Sprintf("%d files of 4 KiB", b.size.files), int64(b.size.files)<<12)
}

func (b *bench) race(ctx context.Context, dir, from, what string, size int64) error {
	ways := []*way{
		{name: "cp -a", copy: command("cp", "-a", "--")},
		{name: "skyport", copy: b.push},
	}
	if _, err := exec.LookPath("rsync"); err == nil {
		ways = append(ways, &way{name: "rsync -a", copy: command("rsync", "-a", "--")})
	} else {
		b.report.skip(what+", rsync -a", err.Error())
	}
	// Copies of many files stay until the end: ext4 makes files slowly for some
	// seconds after others were removed, which the next way would be charged for.
	const mostKept = 1 << 30
	for round := range b.size.rounds {
		for i := range ways {
			w := ways[(i+round)%len(ways)]
			to := filepath.Join(dir, fmt.Sprintf("%s-%d-%d", filepath.Base(from), round, i))
			if err := settle(dir); err != nil {
				return err
			}
			begin := time.Now()
			if err := w.copy(ctx, from, to); err != nil {
				return fmt.Errorf("%s by %s: %w", what, w.name, err)
			}
			w.took = append(w.took, time.Since(begin))
			if err := same(from, to); err != nil {
				return fmt.Errorf("%s by %s: %w", what, w.name, err)
			}
			if size*int64(b.size.rounds) < mostKept {
				continue
			}
			if err := os.RemoveAll(to); err != nil {
				return fmt.Errorf("remove a copy: %w", err)
			}
		}
	}
	ours := ways[1].took.median()
	for _, w := range ways {
		note := w.took.spread()
		if w.name != "skyport" {
			note += fmt.Sprintf("; skyport takes %.2f times as long", ours.Seconds()/w.took.median().Seconds())
		}
		b.report.add(what+", "+w.name+", median", w.took.median().Seconds(), "s", aim{},
			fmt.Sprintf("%s MB/s; %s", number(rate(size, w.took.median())), note))
	}
	return nil
}

// push is a whole transfer by Sky Port's own means.
func (b *bench) push(ctx context.Context, from, to string) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	socket := filepath.Join(b.dir, "sock")
	receiver := exec.CommandContext(ctx, b.self, "receive", socket, to)
	receiver.Stderr = os.Stderr
	ready, err := receiver.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start a receiver: %w", err)
	}
	if err := receiver.Start(); err != nil {
		return fmt.Errorf("start a receiver: %w", err)
	}
	defer func() {
		cancel()
		_ = receiver.Wait() // it was killed
	}()
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		return fmt.Errorf("wait for the receiver: %w", err)
	}
	tree, err := transfer.Scan(ctx, transfer.ScanOptions{Root: from, Strict: true})
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	dialer := &net.Dialer{}
	c := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}
	defer c.CloseIdleConnections()
	if _, err := transfer.Push(ctx, c, "http://receiver", tree, transfer.Options{Attempts: 1}); err != nil {
		return fmt.Errorf("push: %w", err)
	}
	return nil
}

// receive is the other process of a push: it takes trees into a directory.
func receive(socket, dir string) error {
	_ = os.Remove(socket) // the last one was killed
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	place := transfer.NewReceiver(dir, transfer.ReceiverOptions{})
	if _, err := os.Stdout.WriteString("."); err != nil {
		return fmt.Errorf("receive: %w", err)
	}

	return http.Serve(listener, transfer.NewReceiveHandler(func(*http.Request) (transfer.Place, error) { return place, nil }, transfer.Limits{}))
}

// measureInput runs a job with the big file as its input: staged to core by
// the client, then brought to the node.
func measureInput(ctx context.Context, b *bench) (err error) {
	if err := enoughDisk(b.dir, 4*b.size.big); err != nil {
		b.report.skip("a job's input", err.Error())
		return nil
	}
	path := filepath.Join(b.dir, "input", "file")
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Dir(path))) }()
	if err := randomFile(path, b.size.big); err != nil {
		return err
	}
	s, c, err := b.up(ctx)
	if err != nil {
		return err
	}
	defer s.closing(&err)
	if err := settle(b.dir); err != nil {
		return err
	}
	begin := time.Now()
	script := fmt.Sprintf("#!/bin/sh\n#SWM input-files %s\ntest $(wc -c <file) = %d\n", path, b.size.big)
	job, err := c.Submit(ctx, client.Submission{Script: []byte(script)})
	if err != nil {
		return fmt.Errorf("submit a job with an input: %w", err)
	}
	staged := time.Since(begin)
	if job, err = c.Wait(ctx, job.ID); err != nil {
		return fmt.Errorf("wait for the job: %w", err)
	}
	whole := time.Since(begin)
	if job.State != skyport.JobFinished || job.ExitCode != 0 {
		return fmt.Errorf("the job came to %s with %d: %s", job.State.Word(), job.ExitCode, job.Details)
	}
	steps, err := c.Timeline(ctx, job.ID)
	if err != nil {
		return fmt.Errorf("the job's timeline: %w", err)
	}
	size := skyport.Bytes(b.size.big)
	b.report.add(fmt.Sprintf("%s as a job's input: staging to core and submission", size), staged.Seconds(), "s", aim{},
		number(rate(b.size.big, staged))+" MB/s over mutual TLS")
	for _, step := range steps {
		if took := step.End.Sub(step.Start); step.Name == "upload" && took > 0 {
			b.report.add(fmt.Sprintf("%s as a job's input: upload to the node", size), took.Seconds(), "s", aim{}, number(rate(b.size.big, took))+" MB/s")
		}
	}
	b.report.add(fmt.Sprintf("%s as a job's input: submit to finished", size), whole.Seconds(), "s", aim{}, "")
	return nil
}

// command is a way by a program that takes source and target.
func command(name string, args ...string) func(ctx context.Context, from, to string) error {
	return func(ctx context.Context, from, to string) error {
		out, err := exec.CommandContext(ctx, name, append(args, from+"/", to)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
}

// same checks that all files of a tree are in another, with their sizes.
func same(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		want, err := entry.Info()
		if err != nil {
			return err
		}
		got, err := os.Stat(filepath.Join(to, name))
		if err == nil && got.Size() != want.Size() {
			err = fmt.Errorf("%s has %d bytes, not %d", name, got.Size(), want.Size())
		}
		return err
	})
}

// settle waits until the disk has all that was written.
func settle(dir string) error {
	f, err := os.Open(dir)
	if err == nil {
		err = errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
	}
	if err != nil {
		return fmt.Errorf("sync the disk: %w", err)
	}
	return nil
}

func enoughDisk(dir string, bytes int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("space on the disk: %w", err)
	}
	if free := int64(s.Bavail) * s.Bsize; free < bytes+1<<30 {
		return fmt.Errorf("%s has %s free, and %s are needed", dir, skyport.Bytes(free), skyport.Bytes(bytes+1<<30))
	}
	return nil
}

func randomFile(path string, size int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	_, err = io.CopyN(f, rand.Reader, size)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	return nil
}

// manyFiles makes n files of 4 KiB with contents of their own, a hundred in
// each directory.
func manyFiles(dir string, n int) error {
	content := make([]byte, 4<<10)
	for i := range n {
		if _, err := rand.Read(content); err != nil {
			return fmt.Errorf("make a file: %w", err)
		}
		path := filepath.Join(dir, fmt.Sprintf("%03d", i/100), fmt.Sprintf("%02d", i%100))
		if i%100 == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return fmt.Errorf("make a file: %w", err)
			}
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return fmt.Errorf("make a file: %w", err)
		}
	}
	return nil
}
