package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

func main() {
	spool := flag.String("spool", os.ExpandEnv("$HOME/.swm/spool"), "has the gate's certificate in secure/")
	dir := flag.String("dir", os.ExpandEnv("$HOME/.skyport-example"), "where nodes live; a short path")
	listen := flag.String("listen", "127.0.0.1:8454", "where core connects to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *spool, *dir, *listen); err != nil {
		slog.Error("the gate has ended", "error", err)
		os.Exit(1) //nolint:gocritic // there is nothing left to stop
	}
}

func serve(ctx context.Context, spool, dir, listen string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find %s: %w", dir, err)
	}
	own, err := tls.LoadX509KeyPair(filepath.Join(spool, "secure/gate/cert.pem"), filepath.Join(spool, "secure/gate/key.pem"))
	if err != nil {
		return fmt.Errorf("the gate's certificate, which skyport setup makes: %w", err)
	}
	chain, err := os.ReadFile(filepath.Join(spool, "secure/cluster/ca-chain-cert.pem"))
	if err != nil {
		return fmt.Errorf("the authority that signed core's certificate: %w", err)
	}
	authority := x509.NewCertPool()
	authority.AppendCertsFromPEM(chain)
	server := gate.NewServer(gate.Options{Providers: []gate.Provider{&provider{dir: dir}}, Authorize: onlyCore})
	front := &http.Server{
		Addr: listen, Handler: server.Handler(), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority,
		},
	}
	ended := make(chan error, 1)
	go func() {
		err := server.Run(ctx) // removes what is past its lease, until ctx ends
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		ended <- errors.Join(err, front.Shutdown(late))
	}()
	slog.Info("the gate serves core", "url", "https://"+listen, "nodes", dir)
	if err := front.ListenAndServeTLS("", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve core: %w", err)
	}
	return <-ended
}

// onlyCore admits core: users have certificates of the same authority, and only
// the role in them tells them from core.
func onlyCore(r *http.Request) error {
	for _, uri := range r.TLS.PeerCertificates[0].URIs {
		if uri.String() == "skyport:role/core" {
			return nil
		}
	}
	return skyport.Errorf(skyport.CodeForbidden, "only core may call the gate")
}
