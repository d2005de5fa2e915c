package pki

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/openworkload/skyport"
)

// Lifetimes of what is made here, unless a request says otherwise.
const (
	CALife   = 10 * 365 * 24 * time.Hour
	LeafLife = 365 * 24 * time.Hour
)

// backdate lets a certificate be used at once on machines whose clocks are
// somewhat behind. A short life is backdated by a tenth of it only.
const backdate = time.Hour

// Request says what a leaf certificate shall be.
type Request struct {
	Role  Role           // RoleCore, RoleGate or RoleUser
	Name  string         // common name
	ID    skyport.UserID // of a user; a fresh one when empty
	Hosts []string       // host names and IP addresses of a server
	Life  time.Duration  // LeafLife when zero; never beyond the life of the CA
}

// EnsureGrid makes what is missing of the root CA. A certificate whose key is
// elsewhere is complete: the key may have been put away.
func EnsureGrid(grid Pair) (made []string, err error) {
	if exists(grid.Cert) {
		return nil, nil
	}
	key, fresh, err := ensureKey(grid.Key)
	if err != nil {
		return nil, fmt.Errorf("make grid CA: %w", err)
	}
	if fresh {
		made = append(made, grid.Key)
	}
	template, err := caTemplate("Sky Port grid CA", key.Public(), 1)
	if err != nil {
		return made, fmt.Errorf("make grid CA: %w", err)
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return made, fmt.Errorf("make grid CA: %w", err)
	}
	if err := WriteNew(grid.Cert, encodeCertificates(cert), 0o600); err != nil {
		return made, fmt.Errorf("make grid CA: %w", err)
	}
	return append(made, grid.Cert), nil
}

// EnsureCluster makes what is missing of the CA that signs leaves; see
// [EnsureGrid].
func EnsureCluster(cluster, grid Pair) (made []string, err error) {
	if exists(cluster.Cert) {
		return nil, nil
	}
	root, err := loadAuthority(grid)
	if err != nil {
		return nil, fmt.Errorf("make cluster CA: %w", err)
	}
	key, fresh, err := ensureKey(cluster.Key)
	if err != nil {
		return nil, fmt.Errorf("make cluster CA: %w", err)
	}
	if fresh {
		made = append(made, cluster.Key)
	}
	template, err := caTemplate("Sky Port cluster CA", key.Public(), 0)
	if err != nil {
		return made, fmt.Errorf("make cluster CA: %w", err)
	}
	cert, err := sign(root.bound(template), root.cert, key.Public(), root.key)
	if err != nil {
		return made, fmt.Errorf("make cluster CA: %w", err)
	}
	if err := WriteNew(cluster.Cert, encodeCertificates(cert), 0o600); err != nil {
		return made, fmt.Errorf("make cluster CA: %w", err)
	}
	return append(made, cluster.Cert), nil
}

// EnsureChain makes the file that clients verify with: the cluster CA's
// certificate, then the grid CA's. It holds nothing secret.
func EnsureChain(path string, cluster, grid Pair) (made []string, err error) {
	if exists(path) {
		return nil, nil
	}
	lower, err := ReadCertificates(cluster.Cert)
	if err != nil {
		return nil, fmt.Errorf("make CA chain: %w", err)
	}
	upper, err := ReadCertificates(grid.Cert)
	if err != nil {
		return nil, fmt.Errorf("make CA chain: %w", err)
	}
	if err := WriteNew(path, encodeCertificates(lower[0], upper[0]), 0o644); err != nil {
		return nil, fmt.Errorf("make CA chain: %w", err)
	}
	return []string{path}, nil
}

// EnsureLeaf makes what is missing of a leaf's certificate and key, signed by
// the issuer. A key without a certificate gets one. A certificate without its
// key can serve nobody: it is moved aside, to a name that ends in .old, and the
// pair is made anew, a user keeping the id. A certificate and a key that do not
// belong together are an error and are left alone.
func EnsureLeaf(pair, issuer Pair, req Request) (made []string, err error) {
	if exists(pair.Cert) && exists(pair.Key) {
		return nil, CheckPair(pair)
	}
	authority, err := loadAuthority(issuer)
	if err != nil {
		return nil, fmt.Errorf("make %s certificate: %w", req.Role, err)
	}
	if exists(pair.Cert) {
		if req.ID, err = moveAside(pair.Cert, req.ID); err != nil {
			return nil, err
		}
	}
	key, fresh, err := ensureKey(pair.Key)
	if err != nil {
		return nil, fmt.Errorf("make %s certificate: %w", req.Role, err)
	}
	if fresh {
		made = append(made, pair.Key)
	}
	cert, err := authority.leaf(key.Public(), req)
	if err != nil {
		return made, fmt.Errorf("make %s certificate: %w", req.Role, err)
	}
	if err := WriteNew(pair.Cert, authority.withChain(cert), 0o600); err != nil {
		return made, err
	}
	return append(made, pair.Cert), nil
}

// Reissue signs the leaf's certificate anew, for the same key, role, name and
// id, and puts it in place of the old one with a fresh life. With hosts it gets
// those, else it keeps its own.
func Reissue(pair, issuer Pair, life time.Duration, hosts []string) (*x509.Certificate, error) {
	if err := CheckPair(pair); err != nil {
		return nil, err
	}
	old, err := ReadCertificates(pair.Cert)
	if err != nil {
		return nil, fmt.Errorf("renew certificate: %w", err)
	}
	req, err := requestOf(old[0])
	if err != nil {
		return nil, fmt.Errorf("renew certificate %s: %w", pair.Cert, err)
	}
	req.Life = life
	if len(hosts) > 0 {
		req.Hosts = hosts
	}
	authority, err := loadAuthority(issuer)
	if err != nil {
		return nil, fmt.Errorf("renew certificate %s: %w", pair.Cert, err)
	}
	cert, err := authority.leaf(old[0].PublicKey, req)
	if err != nil {
		return nil, fmt.Errorf("renew certificate %s: %w", pair.Cert, err)
	}
	if err := Replace(pair.Cert, authority.withChain(cert), 0o600); err != nil {
		return nil, fmt.Errorf("renew certificate: %w", err)
	}
	return cert, nil
}

// Due is when a certificate should be renewed: after two thirds of its life.
func Due(cert *x509.Certificate) time.Time {
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 3 * 2)
}

// HostsOf lists the names and addresses that a server certificate is good for.
func HostsOf(cert *x509.Certificate) []string {
	hosts := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts
}

// requestOf reads back what a certificate was made from.
func requestOf(cert *x509.Certificate) (Request, error) {
	role, err := RoleOf(cert)
	if err != nil {
		return Request{}, err
	}
	req := Request{Role: role, Name: cert.Subject.CommonName, Hosts: HostsOf(cert)}
	if role == RoleUser {
		if req.ID, _, err = UserOf(cert); err != nil {
			return Request{}, err
		}
	}
	return req, nil
}

// authority is a CA that can sign.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func loadAuthority(pair Pair) (*authority, error) {
	if exists(pair.Cert) && !exists(pair.Key) {
		return nil, skyport.Errorf(skyport.CodeNotFound, "the key of the CA %s is not on this machine", pair.Cert).
			WithHint("do this on the machine where the setup ran, or put the key back to %s", pair.Key)
	}
	if err := CheckPair(pair); err != nil {
		return nil, err
	}
	certs, err := ReadCertificates(pair.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readKey(pair.Key)
	if err != nil {
		return nil, err
	}
	if !certs[0].IsCA {
		return nil, fmt.Errorf("%s is no CA certificate", pair.Cert)
	}
	if now := time.Now(); now.After(certs[0].NotAfter) {
		return nil, fmt.Errorf("the CA certificate %s expired on %s", pair.Cert, certs[0].NotAfter.Format(time.DateOnly))
	}
	return &authority{certs[0], key}, nil
}

// leaf signs a certificate for the key.
func (a *authority) leaf(public crypto.PublicKey, req Request) (*x509.Certificate, error) {
	template, err := leafTemplate(public, req)
	if err != nil {
		return nil, err
	}
	return sign(a.bound(template), a.cert, public, a.key)
}

func leafTemplate(public crypto.PublicKey, req Request) (*x509.Certificate, error) {
	usage := usages(req.Role)
	if usage == nil {
		return nil, fmt.Errorf("role %q is not a leaf's", req.Role)
	}
	if req.Name == "" || len(req.Name) > 64 {
		return nil, fmt.Errorf("name %q: want 1 to 64 bytes", skyport.Abbreviate(req.Name, 70))
	}
	template, err := certTemplate(public, cmp.Or(req.Life, LeafLife))
	if err != nil {
		return nil, err
	}
	template.Subject.CommonName = req.Name
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = usage
	template.URIs = []*url.URL{roleURI(req.Role)}
	if req.Role == RoleUser {
		id, err := skyport.ParseUserID(string(cmp.Or(req.ID, skyport.NewUserID())))
		if err != nil {
			return nil, fmt.Errorf("user %w", err)
		}
		template.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: userIDAttribute, Value: string(id)}}
		template.URIs = append(template.URIs, idURI(id))
	}
	for _, host := range req.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		if err := CheckHost(host); err != nil {
			return nil, err
		}
		template.DNSNames = append(template.DNSNames, host)
	}
	return template, nil
}

// bound shortens the template's life to that of the CA: a certificate that
// outlives its CA only looks valid.
func (a *authority) bound(template *x509.Certificate) *x509.Certificate {
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	if template.NotBefore.Before(a.cert.NotBefore) {
		template.NotBefore = a.cert.NotBefore
	}
	return template
}

// withChain is the content of a leaf's file: with the intermediate, so that a
// peer needs to know the root only.
func (a *authority) withChain(cert *x509.Certificate) []byte {
	return encodeCertificates(cert, a.cert)
}

func caTemplate(name string, public crypto.PublicKey, below int) (*x509.Certificate, error) {
	template, err := certTemplate(public, CALife)
	if err != nil {
		return nil, err
	}
	template.Subject.CommonName = name + " " + hex.EncodeToString(template.SubjectKeyId[:4])
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLen, template.MaxPathLenZero = below, below == 0
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return template, nil
}

func certTemplate(public crypto.PublicKey, life time.Duration) (*x509.Certificate, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	id := sha256.Sum256(der)
	now := time.Now()
	return &x509.Certificate{
		// Without a serial number CreateCertificate makes a random one.
		Subject:               pkix.Name{Organization: []string{"Sky Port"}},
		NotBefore:             now.Add(-min(backdate, life/10)).UTC().Truncate(time.Second),
		NotAfter:              now.Add(life).UTC().Truncate(time.Second),
		SubjectKeyId:          id[:20],
		BasicConstraintsValid: true,
	}, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return cert, nil
}

// CheckHost says what is wrong with a host name for a certificate, or nil. IP
// addresses are not host names.
func CheckHost(host string) error {
	if host == "" || len(host) > 253 {
		return fmt.Errorf("host name %q: want 1 to 253 characters", skyport.Abbreviate(host, 80))
	}
	for _, label := range strings.Split(strings.TrimPrefix(host, "*."), ".") {
		odd := strings.IndexFunc(label, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		})
		if label == "" || len(label) > 63 || odd >= 0 || label[0] == '-' {
			return fmt.Errorf("%q is not a host name", skyport.Abbreviate(host, 80))
		}
	}
	return nil
}

// CheckPair says what is wrong with a certificate and a key that should be there
// and belong together, or nil.
func CheckPair(pair Pair) error {
	certs, err := ReadCertificates(pair.Cert)
	if err != nil {
		return err
	}
	key, err := readKey(pair.Key)
	if err != nil {
		return err
	}
	if !samePublic(certs[0], key.Public()) {
		return skyport.Errorf(skyport.CodeConflict, "certificate %s and key %s do not belong together", pair.Cert, pair.Key).
			WithHint("move the one that is wrong away and run skyport setup again")
	}
	return nil
}

// moveAside renames a certificate that lost its key and returns the user's id
// to go on with: the one asked for, else the one in the certificate.
func moveAside(path string, asked skyport.UserID) (skyport.UserID, error) {
	id := asked
	aside := path + ".old"
	if certs, err := ReadCertificates(path); err == nil {
		aside = fmt.Sprintf("%s.%s.old", path, hex.EncodeToString(certs[0].SerialNumber.Bytes()))
		if known, _, err := UserOf(certs[0]); err == nil && id == "" {
			id = known
		}
	}
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("move aside the certificate without a key: %w", err)
	}
	return id, nil
}

// IssuedBy says whether the first certificate of the file was issued under the
// CAs of the other, whatever the time is: nil if so.
func IssuedBy(cert, cas string) error {
	chain, err := ReadCertificates(cert)
	if err != nil {
		return err
	}
	known, err := ReadCertificates(cas)
	if err != nil {
		return err
	}
	for _, ca := range known {
		if err = chain[0].CheckSignatureFrom(ca); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s was issued by another CA: %w", cert, err)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
