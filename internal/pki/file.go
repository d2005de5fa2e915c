package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/openworkload/skyport"
)

// Pair names the files of a certificate and its key.
type Pair struct {
	Cert string // PEM, the certificate first, then what leads to the root
	Key  string // PEM, PKCS#8
}

// TempPrefix begins the names of files that are being written. One that stays
// was left by a crash.
const TempPrefix = ".new-"

// maxPEM bounds what is read of a certificate or key file.
const maxPEM = 1 << 20

// WriteNew makes the file with the content, whole or not at all, and durable
// when it returns. An existing file is left alone: the error matches
// [fs.ErrExist]. The directory must be there.
func WriteNew(path string, content []byte, mode fs.FileMode) error {
	temp, err := writeTemp(path, content, mode)
	if err != nil {
		return err
	}
	// A link, unlike a rename, never takes the place of a file that is there.
	err = os.Link(temp, path)
	if removal := os.Remove(temp); err == nil && removal != nil {
		err = removal
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// Replace puts the content in place of the file, or makes it: readers see the
// old file or the new, never a part. It is durable when Replace returns.
func Replace(path string, content []byte, mode fs.FileMode) error {
	temp, err := writeTemp(path, content, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}

func writeTemp(path string, content []byte, mode fs.FileMode) (temp string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), TempPrefix+filepath.Base(path)+"-*")
	if err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return "", skyport.Errorf(skyport.CodeNoSpace, "%w", err).WithHint("make room on the disk of %s", filepath.Dir(path))
		}
		return "", err
	}
	return f.Name(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// ReadCertificates reads all certificates of a PEM file, at least one, in the
// order of the file.
func ReadCertificates(path string) ([]*x509.Certificate, error) {
	content, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate %s: %w", path, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("read certificate %s: no certificate in it", path)
	}
	return certs, nil
}

// readKey reads a private key in PKCS#8 or, as other tools write them, EC form.
func readKey(path string) (crypto.Signer, error) {
	content, err := readBounded(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(content)
	for block != nil && block.Type == "EC PARAMETERS" { // openssl ecparam -genkey puts it first
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, fmt.Errorf("read key %s: no PEM block in it", path)
	}
	var key any
	if block.Type == "EC PRIVATE KEY" {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	} else {
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read key %s: a %T cannot sign", path, key)
	}
	return signer, nil
}

// ensureKey reads the key, or makes it when there is none.
func ensureKey(path string) (key crypto.Signer, made bool, err error) {
	key, err = readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, false, fmt.Errorf("make key %s: %w", path, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(fresh)
	if err != nil {
		return nil, false, fmt.Errorf("make key %s: %w", path, err)
	}
	if err := WriteNew(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, false, err
	}
	return fresh, true, nil
}

func encodeCertificates(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = f.Close() }() // read only: nothing can be lost
	content, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(content) > maxPEM {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, maxPEM)
	}
	return content, nil
}

// samePublic says whether the certificate is for the key.
func samePublic(cert *x509.Certificate, public crypto.PublicKey) bool {
	known, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && known.Equal(public)
}
