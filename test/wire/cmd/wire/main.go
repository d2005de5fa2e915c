// Command wire makes an emulated link for use by hand, until it is interrupted:
//
//	go run ./test/wire/cmd/wire -rtt 50ms -rate 1000
//	ip netns exec skywire-4711-1-a ping 198.18.0.2
//
// Lines on standard input change it: "cut", "cut a" (what A sends), "cut b",
// "mend", "forget", "stats", or settings as on the command line ("-loss 0.01 -rtt 300ms").
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/openworkload/skyport/test/wire"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("wire: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// parse reads settings; what args do not name stays.
func parse(s wire.Settings, args []string) (wire.Settings, error) {
	f := flag.NewFlagSet("wire", flag.ContinueOnError)
	rate := float64(s.Rate) / wire.Mbit
	f.DurationVar(&s.RTT, "rtt", s.RTT, "round trip `TIME`")
	f.DurationVar(&s.Jitter, "jitter", s.Jitter, "most that a packet takes longer")
	f.Float64Var(&rate, "rate", rate, "`MBIT` a second each way; 0: no limit")
	f.Int64Var(&s.Queue, "queue", s.Queue, "`BYTES` that wait; 0: a round trip's worth")
	f.Float64Var(&s.Loss, "loss", s.Loss, "`SHARE` of packets that are lost, 0 to 1")
	f.Float64Var(&s.LossBurst, "burst", s.LossBurst, "how many are lost in a row")
	f.Float64Var(&s.Reorder, "reorder", s.Reorder, "`SHARE` of packets that are overtaken")
	f.Float64Var(&s.Duplicate, "duplicate", s.Duplicate, "`SHARE` of packets that come twice")
	f.DurationVar(&s.ForgetIdle, "forget", s.ForgetIdle, "a NAT forgets TCP connections that are idle for so long")
	f.Uint64Var(&s.Seed, "seed", s.Seed, "of all chance")
	f.IntVar(&s.MTU, "mtu", s.MTU, "of the devices; 0: 1500")
	f.BoolVar(&s.Join, "join", s.Join, "B is this machine itself, which forwards")
	f.BoolVar(&s.Masquerade, "masquerade", s.Masquerade, "with -join: networks behind see the machine's address")
	err := f.Parse(args)
	s.Rate = int64(rate * wire.Mbit)
	return s, err
}

func run() error {
	s, err := parse(wire.Settings{}, os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	link, err := wire.Open(ctx, s)
	if err != nil {
		return err
	}
	for _, side := range []*wire.Namespace{link.A, link.B} {
		if side.Name == "" {
			fmt.Printf("this machine is %s, %s\n", side.Addr, side.Device)
			continue
		}
		fmt.Printf("ip netns exec %s COMMAND is %s\n", side.Name, side.Addr)
	}
	lines := make(chan string)
	go func() { // ends with the process: nothing interrupts reading a terminal
		defer close(lines)
		for scanner := bufio.NewScanner(os.Stdin); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return link.Close()
		case line, ok := <-lines:
			if !ok {
				lines = nil
				continue
			}
			if err := do(link, strings.Fields(line), os.Stdout); err != nil {
				log.Print(err)
			}
		}
	}
}

func do(link *wire.Link, words []string, out io.Writer) error {
	if len(words) == 0 {
		return nil
	}
	var ways []wire.Direction
	if len(words) == 2 && words[1] == "a" {
		ways = append(ways, wire.AToB)
	} else if len(words) == 2 && words[1] == "b" {
		ways = append(ways, wire.BToA)
	}
	switch words[0] {
	case "cut":
		link.Cut(ways...)
	case "mend":
		link.Mend(ways...)
	case "forget":
		link.Forget()
	case "stats":
		_, err := fmt.Fprintf(out, "A to B %+v\nB to A %+v\n", link.Stats(wire.AToB), link.Stats(wire.BToA))
		return err
	default:
		s, err := parse(link.Settings(), words)
		if err != nil {
			return err
		}
		return link.Set(s)
	}
	return nil
}
