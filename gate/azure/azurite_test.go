package azure

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// The account that every Azurite has. See
// https://learn.microsoft.com/azure/storage/common/storage-connect-azurite#http-connection-strings
const (
	azuriteAccount = "devstoreaccount1"
	azuriteKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// TestStorageGrantOpensAContainer: Microsoft's own emulator of the storage service
// takes our signature for reading and listing one container, and for nothing else.
func TestStorageGrantOpensAContainer(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("azurite-blob")
	if err != nil {
		t.Skip("needs azurite-blob on the PATH: npm install azurite")
	}
	base, client := azurite(t, program)
	for _, path := range []string{"/ref?restype=container", "/other?restype=container", "/ref/genome"} {
		if status, text := keyed(t, client, base, path, "ACGT"); status != http.StatusCreated {
			t.Fatalf("make %s: %d: %s", path, status, text)
		}
	}
	s := testSite(t, func(o *Options) { o.HTTP = client })
	s.login.now = bearer{}
	grant, err := s.storageGrant(t.Context(), base, azuriteAccount, "ref", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, sas, _ := strings.Cut(grant, "?")
	do := func(method, path string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Ms-Version", storageVersion)
		request.Header.Set("X-Ms-Blob-Type", "BlockBlob")
		return answered(t, client, request)
	}
	if status, text := do(http.MethodGet, "/ref/genome?"+sas); status != http.StatusOK || text != "ACGT" {
		t.Errorf("read: %d: %s", status, text)
	}
	if status, text := do(http.MethodGet, "/ref?restype=container&comp=list&"+sas); status != http.StatusOK || !strings.Contains(text, "<Name>genome</Name>") {
		t.Errorf("list: %d: %s", status, text)
	}
	for _, no := range [][2]string{
		{http.MethodPut, "/ref/genome?" + sas},
		{http.MethodDelete, "/ref/genome?" + sas},
		{http.MethodGet, "/other?restype=container&comp=list&" + sas},
		{http.MethodGet, "/ref/genome?" + strings.Replace(sas, "sp=rl", "sp=rwl", 1)},
		{http.MethodGet, "/ref/genome"},
	} {
		if status, text := do(no[0], no[1]); status < 400 {
			t.Errorf("%s %.30s: %d: %s", no[0], no[1], status, text)
		}
	}
}

// bearer has the token that Azurite looks at: whom it is for and until when.
type bearer struct{}

func (bearer) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"aud": "https://storage.azure.com", "iss": "https://sts.windows.net/7e4a0000-0000-4000-8000-00000000e002/", "nbf": now.Add(-time.Minute).Unix(),
		"iat": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix(), "oid": "c11e0000-0000-4000-8000-00000000e003",
		"tid": "7e4a0000-0000-4000-8000-00000000e002", "ver": "1.0",
	})
	enc := base64.RawURLEncoding
	token := enc.EncodeToString([]byte(`{"typ":"JWT","alg":"RS256"}`)) + "." + enc.EncodeToString(claims) + "." + enc.EncodeToString([]byte("signature"))
	return azcore.AccessToken{Token: token, ExpiresOn: now.Add(time.Hour)}, err
}

// azurite starts it and returns the URL of its account and a client that trusts it.
func azurite(t *testing.T, program string) (string, *http.Client) {
	t.Helper()
	// httptest has a certificate for 127.0.0.1 that nobody needs to make.
	donor := httptest.NewTLSServer(http.NotFoundHandler())
	pair := donor.TLS.Certificates[0]
	authority := donor.Certificate()
	donor.Close()
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "key": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), program, "--blobHost", "127.0.0.1", "--blobPort", "0", "--location", dir,
		"--oauth", "basic", "--cert", filepath.Join(dir, "cert"), "--key", filepath.Join(dir, "key"), "--skipApiVersionCheck", "--disableTelemetry")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // says that it was killed
	})
	url := ""
	for lines := bufio.NewScanner(out); url == "" && lines.Scan(); {
		if _, after, found := strings.Cut(lines.Text(), "listens on "); found {
			url = strings.TrimSpace(after)
		}
	}
	if url == "" {
		t.Fatal("azurite does not say where it listens")
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // until it ends
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return url + "/" + azuriteAccount, &http.Client{Transport: transport}
}

// keyed makes something with the key of the account. See
// https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
func keyed(t *testing.T, client *http.Client, base, path, content string) (int, string) {
	t.Helper()
	resource, query, made := strings.Cut(path, "?")
	if made {
		content = ""
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, base+path, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	date := time.Now().UTC().Format(http.TimeFormat)
	request.Header.Set("X-Ms-Date", date)
	request.Header.Set("X-Ms-Version", storageVersion)
	headers, length := "x-ms-date:"+date+"\nx-ms-version:"+storageVersion+"\n", ""
	if content != "" {
		request.Header.Set("X-Ms-Blob-Type", "BlockBlob")
		headers, length = "x-ms-blob-type:BlockBlob\n"+headers, strconv.Itoa(len(content))
	}
	canonical := "/" + azuriteAccount + "/" + azuriteAccount + resource
	if query != "" {
		canonical += "\n" + strings.Replace(query, "=", ":", 1)
	}
	secret, err := base64.StdEncoding.DecodeString(azuriteKey)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("PUT\n\n\n" + length + "\n\n\n\n\n\n\n\n\n" + headers + canonical))
	request.Header.Set("Authorization", "SharedKey "+azuriteAccount+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return answered(t, client, request)
}

func answered(t *testing.T, client *http.Client, request *http.Request) (int, string) {
	t.Helper()
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }() // was read
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}
