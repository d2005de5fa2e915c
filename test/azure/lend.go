package azuretest

import (
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/url"
	"strings"
)

// exchange is a container registry that gives a login for a token of ours. Its
// host is the one that the caller asked for, in the form and in the header. See
// https://azure.github.io/acr/AAD-OAuth.html#calling-post-oauth2exchange-to-get-an-acr-refresh-token
func (e *Emulator) exchange(req *request) (*response, error) {
	form, err := url.ParseQuery(string(req.body))
	refuse := func(status int, code, text string) (*response, error) {
		return answer(status, map[string]any{"errors": []any{map[string]any{"code": code, "message": text}}})
	}
	switch {
	case err != nil || req.method != http.MethodPost || form.Get("grant_type") != "access_token":
		return refuse(http.StatusBadRequest, "UNSUPPORTED", "The grant_type is not one that is supported.")
	case form.Get("service") == "" || !strings.EqualFold(form.Get("service"), req.host):
		return refuse(http.StatusBadRequest, "UNSUPPORTED", "The service is not this registry.")
	case e.authorize(http.Header{"Authorization": {"Bearer " + form.Get("access_token")}}) != nil:
		return refuse(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization for more information.")
	}
	e.mu.Lock()
	ends := e.now().Add(3 * e.o.TokenLife)
	e.mu.Unlock()
	return answer(http.StatusOK, map[string]any{"refresh_token": e.issue(ends)})
}

// StorageKey is what user delegation keys of the emulator sign with.
var StorageKey = []byte("the emulator's key of a user delegation")

// delegate is a storage account that gives a key to sign with. See
// https://learn.microsoft.com/rest/api/storageservices/get-user-delegation-key
func (e *Emulator) delegate(req *request) (*response, error) {
	if err := e.authorize(req.header); err != nil {
		return answer(http.StatusForbidden, xmlBody(`<Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request.</Message></Error>`))
	}
	var asked struct{ Start, Expiry string }
	if err := xml.Unmarshal(req.body, &asked); err != nil || asked.Start == "" || asked.Expiry == "" {
		return answer(http.StatusBadRequest, xmlBody(`<Error><Code>InvalidXmlDocument</Code><Message>XML specified is not syntactically valid.</Message></Error>`))
	}
	text := func(s string) string {
		var b strings.Builder
		_ = xml.EscapeText(&b, []byte(s)) // a builder takes everything
		return b.String()
	}
	return answer(http.StatusOK, xmlBody(`<UserDelegationKey><SignedOid>`+text(e.o.ClientID)+`</SignedOid><SignedTid>`+text(e.o.Tenant)+
		`</SignedTid><SignedStart>`+text(asked.Start)+`</SignedStart><SignedExpiry>`+text(asked.Expiry)+
		`</SignedExpiry><SignedService>b</SignedService><SignedVersion>`+text(req.header.Get("X-Ms-Version"))+`</SignedVersion><Value>`+
		base64.StdEncoding.EncodeToString(StorageKey)+`</Value></UserDelegationKey>`))
}

// xmlBody is an answer of the storage services, which do not speak JSON.
type xmlBody string
