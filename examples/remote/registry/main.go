// Command registry serves one image, made of a root file system, from a registry
// with TLS and a login, as `make demo-remote` needs one. It writes its authority's
// certificate and then the image's name, and runs until it is ended.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/openworkload/skyport/test/registry"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("registry: ")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	dir := flag.String("dir", "", "directory of its layers, and of what it writes: ca.pem, image")
	image := flag.String("image", "", "name of the image, such as mpi:1")
	rootfs := flag.String("rootfs", "", "tar file of the image's root file system")
	user := flag.String("user", "reader", "user who may read; the password is read from standard input")
	flag.Parse()
	var password string
	if _, err := fmt.Scanln(&password); err != nil {
		return fmt.Errorf("read the password: %w", err)
	}
	layers := filepath.Join(*dir, "layers")
	if err := os.MkdirAll(layers, 0o700); err != nil {
		return err
	}
	r, err := registry.Start(ctx, registry.Options{Listen: *listen, Dir: layers, Username: *user, Password: password})
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // the program ends
	name, err := r.Add(ctx, *image, *rootfs, runtime.GOARCH)
	if err != nil {
		return err
	}
	for file, text := range map[string]string{"ca.pem": string(r.CA), "image": name + "\n"} {
		path := filepath.Join(*dir, file)
		if err := os.WriteFile(path+".new", []byte(strings.TrimSpace(text)+"\n"), 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}
