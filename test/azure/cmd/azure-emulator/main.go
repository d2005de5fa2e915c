package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	azuretest "github.com/openworkload/skyport/test/azure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "azure-emulator:", err)
		os.Exit(1)
	}
}

// about is what others need to know.
type about struct {
	URL          string `json:"url"`
	Authority    string `json:"authority"`
	Prices       string `json:"prices"`
	CAFile       string `json:"ca_file"`
	Subscription string `json:"subscription"`
	Tenant       string `json:"tenant"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	Location     string `json:"location"`
	PID          int    `json:"pid"`
}

func run(ctx context.Context) error {
	o := azuretest.Options{}
	var machines, name, image, out, gateFile string
	var verbose bool
	flag.StringVar(&o.Listen, "listen", "", "address to listen at (default: a free port of the loopback)")
	flag.StringVar(&machines, "machines", "nothing", "what virtual machines become: nothing or docker")
	flag.StringVar(&image, "image", "", "node image of -machines docker")
	flag.StringVar(&name, "name", "", "name of the containers' site, so that they are found again with -state")
	flag.StringVar(&o.State, "state", "", "file that keeps what exists")
	flag.DurationVar(&o.Boot, "boot", 0, "time from the creation of a machine to its running")
	flag.DurationVar(&o.Latency, "latency", 0, "time that any other resource takes")
	flag.DurationVar(&o.Removal, "removal", 0, "time that the deletion of a group takes")
	flag.DurationVar(&o.RetryAfter, "retry-after", 100*time.Millisecond, "what waiting callers are told")
	flag.Uint64Var(&o.Seed, "seed", 1, "of all chance")
	flag.IntVar(&o.Sizes, "sizes", 0, "invent sizes until there are so many")
	flag.StringVar(&out, "out", "", "file for the description (default: standard output)")
	flag.StringVar(&gateFile, "gate-file", "", "file for a gate.yaml with a site azure here, for a gate on this machine")
	flag.BoolVar(&verbose, "v", false, "log every call")
	flag.Parse()
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	switch machines {
	case "nothing":
	case "docker":
		d, err := azuretest.NewDocker(azuretest.DockerOptions{Image: image, Name: name, Keep: o.State != "" && name != "", Logger: o.Logger})
		if err != nil {
			return err
		}
		o.Machines = d
	default:
		return fmt.Errorf("-machines %q is neither nothing nor docker", machines)
	}
	e, err := azuretest.New(o)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(about{
		URL: e.URL(), Authority: e.Authority(), Prices: e.PricesURL(), CAFile: e.CAFile(), Subscription: e.Subscription(), Tenant: e.Tenant(),
		ClientID: e.ClientID(), ClientSecret: e.ClientSecret(), Location: e.Location(), PID: os.Getpid(),
	}, "", "  ")
	if err == nil && gateFile != "" {
		err = tell(gateFile, []byte(e.GateFile("azure", "ssh_from: [127.0.0.1/32]")))
	}
	if err == nil {
		err = tell(out, append(text, '\n'))
	}
	if err != nil {
		return errors.Join(err, e.Close())
	}
	<-ctx.Done()
	return e.Close()
}

// tell writes the description, whole or not at all.
func tell(file string, text []byte) error {
	if file == "" {
		_, err := os.Stdout.Write(text)
		return err
	}
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
