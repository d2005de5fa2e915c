package azure

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
)

const (
	storageVersion = "2020-12-06"       // of the storage service, which says what is signed
	longestGrant   = 7 * 24 * time.Hour // of a key of this kind
	clockSkew      = 5 * time.Minute
)

// Names as in https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
var (
	accountName   = regexp.MustCompile(`^[a-z0-9]{3,24}$`)
	containerName = regexp.MustCompile(`^[a-z0-9](-?[a-z0-9]){2,62}$`)
)

// StorageGrant is a URL by which its bearer may read and list a container of
// blobs, and nothing else, for a while. It needs no key of the account: we sign
// with one that is made for us. See
// https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas
func (s *site) StorageGrant(ctx context.Context, account, container string, life time.Duration) (string, error) {
	if !accountName.MatchString(account) || !containerName.MatchString(container) {
		return "", notStorage(account, container)
	}
	if life <= 0 || life > longestGrant {
		return "", skyport.Errorf(skyport.CodeInvalid, "a container cannot be opened for %v: for 7 days at most", life)
	}
	return s.storageGrant(ctx, "https://"+s.blobHost(account), account, container, time.Now(), life)
}

// delegationKey is what we sign with. See
// https://learn.microsoft.com/rest/api/storageservices/get-user-delegation-key
type delegationKey struct {
	Object  string `xml:"SignedOid"`
	Tenant  string `xml:"SignedTid"`
	Start   string `xml:"SignedStart"`
	Expiry  string `xml:"SignedExpiry"`
	Service string `xml:"SignedService"`
	Version string `xml:"SignedVersion"`
	Value   string `xml:"Value"`
}

func (s *site) storageGrant(ctx context.Context, base, account, container string, now time.Time, life time.Duration) (string, error) {
	start, end := stamp(now.Add(-clockSkew)), stamp(now.Add(life))
	key, err := s.delegationKey(ctx, base, account, start, end)
	if err != nil {
		return "", err
	}
	secret, err := base64.StdEncoding.DecodeString(key.Value)
	if err != nil || len(secret) == 0 {
		return "", skyport.Errorf(skyport.CodeUnavailable, "the storage account %s gives a key that is none", account)
	}
	signed := strings.Join([]string{
		"rl", start, end, "/blob/" + account + "/" + container, key.Object, key.Tenant, key.Start, key.Expiry, key.Service, key.Version,
		"", "", "", // authorised and unauthorised object, correlation
		"", "https", storageVersion, "c", "", "", // addresses, protocol, version, resource, snapshot, encryption scope
		"", "", "", "", "", // headers of answers
	}, "\n")
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	query := url.Values{
		"sp": {"rl"}, "st": {start}, "se": {end}, "skoid": {key.Object}, "sktid": {key.Tenant}, "skt": {key.Start}, "ske": {key.Expiry},
		"sks": {key.Service}, "skv": {key.Version}, "spr": {"https"}, "sv": {storageVersion}, "sr": {"c"},
		"sig": {base64.StdEncoding.EncodeToString(mac.Sum(nil))},
	}
	return base + "/" + container + "?" + query.Encode(), nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func (s *site) delegationKey(ctx context.Context, base, account, start, end string) (*delegationKey, error) {
	what := "ask the storage account " + account + " for a key"
	mine, err := s.login.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}})
	if err != nil {
		return nil, s.explain(err, "%s", what)
	}
	request, err := runtime.NewRequest(ctx, http.MethodPost, base+"/?restype=service&comp=userdelegationkey")
	if err != nil {
		return nil, s.explain(err, "%s", what)
	}
	text := `<?xml version="1.0" encoding="utf-8"?><KeyInfo><Start>` + start + `</Start><Expiry>` + end + `</Expiry></KeyInfo>`
	if err := request.SetBody(streaming.NopCloser(strings.NewReader(text)), "application/xml"); err != nil {
		return nil, s.explain(err, "%s", what)
	}
	request.Raw().Header.Set("Authorization", "Bearer "+mine.Token)
	request.Raw().Header.Set("x-ms-version", storageVersion)
	answer, err := s.public.Do(request) //nolint:bodyclose // the SDK reads and closes it here and below
	if err != nil {
		return nil, s.explain(err, "%s", what)
	}
	if answer.StatusCode == http.StatusForbidden {
		return nil, cloud.Permanent(skyport.CodeCredentials, "the storage account %s does not let us open its containers", account).
			WithHint("az role assignment create --assignee %s --role \"Storage Blob Data Reader\" --scope $(az storage account show -n %s --query id -o tsv); "+
				"the role Storage Blob Delegator suffices for the key, not for what it opens.", s.assignee(), account)
	}
	if !runtime.HasStatusCode(answer, http.StatusOK) {
		return nil, s.explain(runtime.NewResponseError(answer), "%s", what)
	}
	var key delegationKey
	data, err := runtime.Payload(answer)
	if err != nil {
		return nil, s.explain(err, "%s", what)
	}
	if err := xml.Unmarshal(data, &key); err != nil {
		return nil, skyport.Errorf(skyport.CodeUnavailable, "%s: %w", what, err)
	}
	return &key, nil
}
