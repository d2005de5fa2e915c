package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

// What the first byte of a connection asks of the job's server.
const (
	wantEcho   = 'e' // sends back what comes
	wantSink   = 'k' // takes all, then answers with how much
	wantSource = 's' // sends as much as the next eight bytes say
)

// measurePort compares a job's forwarded port with a direct connection to the
// job. The job listens on 127.0.0.1, so every byte goes the way that it goes
// to a remote node, only without SSH: user, core, upgraded request over the
// worker's socket, worker, job, and back.
func measurePort(ctx context.Context, b *bench) (err error) {
	s, c, err := b.up(ctx)
	if err != nil {
		return err
	}
	defer s.closing(&err)
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	direct := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	script := fmt.Sprintf("#!/bin/sh\n#SWM ports %d/tcp/in\nexec %s serve %s\n", port, b.self, direct)
	job, err := c.Submit(ctx, client.Submission{Script: []byte(script)})
	if err != nil {
		return fmt.Errorf("submit a server: %w", err)
	}
	if err := reach(ctx, c, job.ID, skyport.JobRunning); err != nil {
		return err
	}
	forwarded, err := openPort(ctx, c, job.ID)
	if err != nil {
		return err
	}

	ends := []*portEnd{{name: "direct", address: direct}, {name: "forwarded", address: forwarded}}
	for round := range b.size.rounds {
		for i := range ends {
			if err := ends[(i+round)%len(ends)].measure(ctx, b.size); err != nil {
				return err
			}
		}
	}
	d, f := ends[0], ends[1]
	b.report.add("port: round trip of a byte, direct, median", microseconds(d.trips.median()), "µs", aim{}, "p99 "+round(d.trips.quantile(0.99)).String())
	b.report.add("port: round trip of a byte, forwarded, median", microseconds(f.trips.median()), "µs", aim{},
		fmt.Sprintf("p99 %s; %.1f times direct", round(f.trips.quantile(0.99)), f.trips.median().Seconds()/d.trips.median().Seconds()))
	b.report.add("port: connect and first answer, direct, median", microseconds(d.dials.median()), "µs", aim{}, "")
	b.report.add("port: connect and first answer, forwarded, median", microseconds(f.dials.median()), "µs", aim{}, "")
	for _, way := range []struct {
		name   string
		direct series
		ours   series
	}{{"to the job", d.to, f.to}, {"from the job", d.from, f.from}} {
		fast, slow := rate(b.size.stream, way.direct.median()), rate(b.size.stream, way.ours.median())
		b.report.add("port: throughput "+way.name+", direct, median", fast, "MB/s", aim{}, "")
		b.report.add("port: throughput "+way.name+", forwarded, median", slow, "MB/s", aim{}, fmt.Sprintf("%.0f%% of direct", 100*slow/fast))
	}
	return nil
}

// portEnd is an address of the job's server and how it did.
type portEnd struct {
	name, address string
	trips, dials  series
	to, from      series
}

func (e *portEnd) measure(ctx context.Context, size sizes) error {
	for _, one := range []func(context.Context, sizes) error{e.echo, e.dial, e.push, e.pull} {
		if err := one(ctx, size); err != nil {
			return fmt.Errorf("%s connection: %w", e.name, err)
		}
	}
	return nil
}

func (e *portEnd) open(ctx context.Context, want byte) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", e.address)
	if err != nil {
		return nil, err
	}
	err = errors.Join(conn.SetDeadline(time.Now().Add(patience)), writeAll(conn, []byte{want}))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (e *portEnd) echo(ctx context.Context, size sizes) error {
	conn, err := e.open(ctx, wantEcho)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // all was read
	one := make([]byte, 1)
	for range size.echoes {
		begin := time.Now()
		if err := writeAll(conn, one); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, one); err != nil {
			return err
		}
		e.trips = append(e.trips, time.Since(begin))
	}
	return nil
}

func (e *portEnd) dial(ctx context.Context, size sizes) error {
	for range max(1, size.echoes/50) {
		begin := time.Now()
		conn, err := e.open(ctx, wantEcho)
		if err != nil {
			return err
		}
		one := make([]byte, 1)
		err = writeAll(conn, one)
		if err == nil {
			_, err = io.ReadFull(conn, one)
		}
		e.dials = append(e.dials, time.Since(begin))
		if err := errors.Join(err, conn.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (e *portEnd) push(ctx context.Context, size sizes) error {
	conn, err := e.open(ctx, wantSink)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // all was read
	begin := time.Now()
	block := make([]byte, 256<<10)
	for left := size.stream; left > 0; left -= int64(len(block)) {
		block = block[:min(left, int64(len(block)))]
		if err := writeAll(conn, block); err != nil {
			return err
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil { //nolint:forcetypeassert // TCP was dialled
		return err
	}
	var count [8]byte
	if _, err := io.ReadFull(conn, count[:]); err != nil {
		return err
	}
	if n := binary.BigEndian.Uint64(count[:]); n != uint64(size.stream) {
		return fmt.Errorf("%d of %d bytes came", n, size.stream)
	}
	e.to = append(e.to, time.Since(begin))
	return nil
}

func (e *portEnd) pull(ctx context.Context, size sizes) error {
	conn, err := e.open(ctx, wantSource)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // all was read
	begin := time.Now()
	if err := writeAll(conn, binary.BigEndian.AppendUint64(nil, uint64(size.stream))); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 256<<10))
	if err == nil && n != size.stream {
		err = fmt.Errorf("%d of %d bytes came", n, size.stream)
	}
	e.from = append(e.from, time.Since(begin))
	return err
}

// serveJob is the job: a server for the first bytes above.
func serveJob(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		go func() {
			defer func() { _ = conn.Close() }() // the other end sees what is missing
			_ = answer(conn)                    // the other end sees what is missing
		}()
	}
}

func answer(conn net.Conn) error {
	var want [1]byte
	if _, err := io.ReadFull(conn, want[:]); err != nil {
		return err
	}
	buffer := make([]byte, 256<<10)
	switch want[0] {
	case wantEcho:
		_, err := io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}, buffer)
		return err
	case wantSink:
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, buffer)
		if err != nil {
			return err
		}
		return writeAll(conn, binary.BigEndian.AppendUint64(nil, uint64(n)))
	case wantSource:
		var count [8]byte
		if _, err := io.ReadFull(conn, count[:]); err != nil {
			return err
		}
		for left := binary.BigEndian.Uint64(count[:]); left > 0; left -= uint64(len(buffer)) {
			buffer = buffer[:min(left, uint64(len(buffer)))]
			if err := writeAll(conn, buffer); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeAll(w io.Writer, p []byte) error {
	_, err := w.Write(p)
	return err
}

// openPort waits until the job's port answers and tells where.
func openPort(ctx context.Context, c *client.Client, id skyport.JobID) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		ports, err := c.Ports(ctx, id)
		if err != nil {
			return "", fmt.Errorf("wait for the port: %w", err)
		}
		if len(ports) == 1 && ports[0].Open {
			return ports[0].Address, nil
		}
	}
}

func freePort(ctx context.Context) (int, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // TCP was listened on
	return port, listener.Close()
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
