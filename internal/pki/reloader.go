package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Reloader holds a certificate, its key and the CAs to verify peers with, as
// they are in files, and takes up changes while connections come and go. It
// looks at the files at most once a second, when somebody connects. Safe for
// concurrent use; it owns no goroutine.
type Reloader struct {
	files Files
	log   *slog.Logger

	current atomic.Pointer[material]
	next    atomic.Int64 // unix nanoseconds before which nobody looks at the files
	loading sync.Mutex   // held while files are read
	failed  [3]stamp     // the stamps that could not be loaded; under loading
}

// Files names what a Reloader loads.
type Files struct {
	Pair
	CA string // PEM: certificates that a peer's chain may end in
}

// material is one consistent state of the files. It does not change.
type material struct {
	stamps   [3]stamp // cert, key, CA
	cert     *tls.Certificate
	cas      *x509.CertPool
	verified verdicts
}

// stamp tells one version of a file from the next. Files are replaced by
// renames, so a new version has another inode at least.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

const lookEvery = time.Second

// NewReloader loads the files. They must be there and belong together.
func NewReloader(files Files, log *slog.Logger) (*Reloader, error) {
	if log == nil {
		log = slog.Default()
	}
	r := &Reloader{files: files, log: log}
	if err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// Reload looks at the files now and loads them if they changed. On an error the
// Reloader goes on with what it had.
func (r *Reloader) Reload() error {
	r.loading.Lock()
	defer r.loading.Unlock()
	stamps, err := r.look()
	if err != nil {
		return err
	}
	if now := r.current.Load(); now != nil && now.stamps == stamps {
		return nil
	}
	fresh, err := load(r.files)
	if err != nil {
		r.failed = stamps
		return err
	}
	// Stamps from before the reading: what changed meanwhile is seen next time.
	fresh.stamps = stamps
	r.current.Store(fresh)
	r.log.Debug("certificate loaded", "file", r.files.Cert, "name", fresh.cert.Leaf.Subject.CommonName,
		"expires", fresh.cert.Leaf.NotAfter)
	return nil
}

// Leaf is the certificate in use.
func (r *Reloader) Leaf() *x509.Certificate { return r.current.Load().cert.Leaf }

// Expires is when the certificate in use ends.
func (r *Reloader) Expires() time.Time { return r.Leaf().NotAfter }

// fresh returns the material, after a look at the files when the last one is a
// while ago. One caller looks; the others go on with what there is.
func (r *Reloader) fresh() *material {
	now, next := time.Now().UnixNano(), r.next.Load()
	// A clock that was set back must not stop the looking.
	due := now >= next || next-now > int64(2*lookEvery)
	if due && r.next.CompareAndSwap(next, now+int64(lookEvery)) {
		if err := r.reloadOnce(); err != nil {
			r.log.Warn("changed certificate files cannot be used, going on with the old ones",
				"file", r.files.Cert, "error", err)
		}
	}
	return r.current.Load()
}

// reloadOnce is Reload, but stays silent about files that failed before.
func (r *Reloader) reloadOnce() error {
	if stamps, err := r.look(); err == nil {
		r.loading.Lock()
		known := r.failed == stamps
		r.loading.Unlock()
		if known {
			return nil
		}
	}
	return r.Reload()
}

func (r *Reloader) look() (stamps [3]stamp, err error) {
	for i, path := range []string{r.files.Cert, r.files.Key, r.files.CA} {
		info, err := os.Stat(path)
		if err != nil {
			return stamps, fmt.Errorf("load certificate: %w", err)
		}
		stamps[i] = stamp{info.ModTime(), info.Size(), inode(info)}
	}
	return stamps, nil
}

func load(files Files) (*material, error) {
	certs, err := ReadCertificates(files.Cert)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	key, err := readKey(files.Key)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	if !samePublic(certs[0], key.Public()) {
		return nil, fmt.Errorf("load certificate: %s and %s do not belong together", files.Cert, files.Key)
	}
	cas, err := ReadCertificates(files.CA)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	m := &material{cert: &tls.Certificate{PrivateKey: key, Leaf: certs[0]}, cas: x509.NewCertPool()}
	for _, cert := range certs {
		m.cert.Certificate = append(m.cert.Certificate, cert.Raw)
	}
	for _, ca := range cas {
		m.cas.AddCert(ca)
	}
	return m, nil
}
