package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

func connected() *client.Client {
	c, err := client.New(client.Options{
		URL:      "https://localhost:8443",
		CAFile:   "/home/ann/.swm/spool/secure/cluster/ca-chain-cert.pem",
		CertFile: "/home/ann/.swm/cert.pem",
		KeyFile:  "/home/ann/.swm/key.pem",
	})
	if err != nil {
		log.Fatal(err)
	}
	return c
}

// Submit a script with its input files, wait for the end, fetch the results.
func Example() {
	ctx := context.Background()
	c := connected()
	defer c.Close()

	job, err := c.Submit(ctx, client.Submission{
		Script: []byte("#!/bin/sh\n#SWM input-files book.txt\n#SWM output-files words.txt\nwc -w book.txt > words.txt\n"),
		Dir:    "/home/ann/books",
	})
	if err != nil {
		log.Fatal(err)
	}
	if job, err = c.Wait(ctx, job.ID); err != nil {
		log.Fatal(err)
	}
	if _, err := c.Results(ctx, job.ID, "/home/ann/results", nil); err != nil {
		log.Fatal(err)
	}
	fmt.Println(job.State.Word(), job.ExitCode)
}

// A refused script tells its place and what to do.
func ExampleClient_Submit_refused() {
	c := connected()
	defer c.Close()
	_, err := c.Submit(context.Background(), client.Submission{Script: []byte("#!/bin/sh\n#SWM flavour big\n")})
	var refused *skyport.Error
	if errors.As(err, &refused) && refused.Code == skyport.CodeInvalidScript {
		fmt.Printf("line %d, column %d: %s; %s\n", refused.Line, refused.Column, refused.Message, refused.Hint)
	}
}

// Events go on over restarts of core, so a loop over them is all it takes.
func ExampleClient_Events() {
	c := connected()
	defer c.Close()
	for event, err := range c.Events(context.Background(), client.EventFilter{}, client.FromNow) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(event.Time, event.Job.Short(), event.Kind, event.State, event.Text)
	}
}

// Follow a log until the job ends.
func ExampleClient_Logs() {
	ctx := context.Background()
	c := connected()
	defer c.Close()
	job, err := c.Find(ctx, "1a2b3c4d")
	if err != nil {
		log.Fatal(err)
	}
	output, err := c.Logs(ctx, job.ID, skyport.Stdout, client.LogOptions{Follow: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = output.Close() }()
	if _, err := io.Copy(os.Stdout, output); err != nil {
		log.Fatal(err)
	}
}

// List what runs at one site.
func ExampleClient_Jobs() {
	c := connected()
	defer c.Close()
	running := client.JobFilter{States: []skyport.JobState{skyport.JobRunning}, Site: "local"}
	for job, err := range c.Jobs(context.Background(), running) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(job.ID, job.Name, job.Details)
	}
}
