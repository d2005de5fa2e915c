// Package serve runs an HTTPS server as both daemons do: bounded headers, no
// patience for peers that send nothing, a clean end. [TLS] returns when all
// answers have ended, or have been cut after a few seconds.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// patience is how long a server that stops waits for answers under way.
const patience = 5 * time.Second

// Server returns a server with the bounds that hold for every peer. Bodies and
// answers may take long (transfers, event streams): their handlers bound them.
func Server(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// TLS serves on the listener until ctx ends. Requests see the end of ctx at
// once, so that streams end; other answers get a few seconds.
func TLS(ctx context.Context, server *http.Server, listener net.Listener) error {
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	server.BaseContext = func(net.Listener) context.Context { return requests }
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		cut()
		err := server.Shutdown(waiting)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		stopped <- err
	})
	err := server.ServeTLS(listener, "", "") // its TLSConfig has the certificate
	if stop() {                              // it ended by itself
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("stop serving %s: %w", listener.Addr(), err)
	}
	return nil
}
