package azuretest

import (
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// login is the token service: discovery and client credentials.
// https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
func (e *Emulator) login(req *request) (*response, error) {
	path := strings.ToLower(req.path)
	if path == "/common/discovery/instance" {
		return answer(http.StatusOK, map[string]any{
			"tenant_discovery_endpoint": e.URL() + "/" + e.o.Tenant + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
			"metadata": []any{map[string]any{"preferred_network": e.host, "preferred_cache": e.host, "aliases": []string{e.host}}},
		})
	}
	if path == "/msi/token" {
		return e.identity(req)
	}
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case rest != "v2.0/.well-known/openid-configuration" && rest != "oauth2/v2.0/token" && rest != "oauth2/token":
		return nil, problem(http.StatusNotFound, "NotFound", "The emulator has nothing at '%s'.", req.path)
	case tenant != strings.ToLower(e.o.Tenant):
		return refused(http.StatusBadRequest, "invalid_request", 90002, "Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.", tenant)
	case strings.HasPrefix(rest, "v2.0"):
		base := e.URL() + "/" + e.o.Tenant
		return answer(http.StatusOK, map[string]any{
			"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0",
			"token_endpoint_auth_methods_supported": []string{"client_secret_post", "private_key_jwt"}, "response_types_supported": []string{"code"},
			"jwks_uri": base + "/discovery/v2.0/keys",
		})
	}
	form, err := url.ParseQuery(string(req.body))
	if err != nil || req.method != http.MethodPost {
		return refused(http.StatusBadRequest, "invalid_request", 900144, "The request body must contain the following parameter: 'grant_type'.")
	}
	return e.token(form)
}

// IdentityEndpoint and IdentityHeader are what a machine with a managed identity
// finds in IDENTITY_ENDPOINT and IDENTITY_HEADER.
func (e *Emulator) IdentityEndpoint() string { return e.URL() + "/msi/token" }

// IdentityHeader is the secret that goes with it.
func (e *Emulator) IdentityHeader() string { return e.o.ClientSecret }

// identity is the token service of a managed identity.
// https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference
func (e *Emulator) identity(req *request) (*response, error) {
	if subtle.ConstantTimeCompare([]byte(req.header.Get("X-IDENTITY-HEADER")), []byte(e.o.ClientSecret)) != 1 {
		return answer(http.StatusForbidden, map[string]any{"statusCode": http.StatusForbidden, "message": "the header X-IDENTITY-HEADER is wrong"})
	}
	if client := req.query.Get("client_id"); client != "" && !strings.EqualFold(client, e.o.ClientID) || e.Faults().NoClient {
		return answer(http.StatusBadRequest, map[string]any{"statusCode": http.StatusBadRequest, "message": "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId."})
	}
	e.mu.Lock()
	ends := e.now().Add(e.o.TokenLife)
	e.mu.Unlock()
	return answer(http.StatusOK, map[string]any{
		"access_token": e.issue(ends), "client_id": e.o.ClientID, "expires_on": strconv.FormatInt(ends.Unix(), 10), "resource": req.query.Get("resource"), "token_type": "Bearer",
	})
}

// refused is an error of the token service.
func refused(status int, code string, number int, format string, args ...any) (*response, error) {
	return answer(status, map[string]any{
		"error": code, "error_codes": []int{number}, "timestamp": time.Now().UTC().Format("2006-01-02 15:04:05Z"),
		"error_description": fmt.Sprintf("AADSTS%d: ", number) + fmt.Sprintf(format, args...) + " Trace ID: 0 Correlation ID: 0",
		"trace_id":          "00000000-0000-0000-0000-000000000000", "correlation_id": "00000000-0000-0000-0000-000000000000",
	})
}

func (e *Emulator) token(form url.Values) (*response, error) {
	client := form.Get("client_id")
	switch {
	case form.Get("grant_type") != "client_credentials":
		return refused(http.StatusBadRequest, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '%s'.", form.Get("grant_type"))
	case e.Faults().NoClient || !strings.EqualFold(client, e.o.ClientID):
		return refused(http.StatusBadRequest, "unauthorized_client", 700016, "Application with identifier '%s' was not found in the directory '%s'.", client, e.o.Tenant)
	case !strings.HasSuffix(form.Get("scope"), "/.default") && !strings.Contains(form.Get("scope"), "/.default "):
		return refused(http.StatusBadRequest, "invalid_scope", 70011, "The provided request must include a 'scope' input parameter. The scope '%s' is not valid.", form.Get("scope"))
	}
	if assertion := form.Get("client_assertion"); assertion != "" {
		if err := e.asserted(assertion); err != nil {
			return refused(http.StatusUnauthorized, "invalid_client", 700027, "The certificate with identifier used to sign the client assertion is not registered on application. [%v]", err)
		}
	} else if subtle.ConstantTimeCompare([]byte(form.Get("client_secret")), []byte(e.o.ClientSecret)) != 1 {
		return refused(http.StatusUnauthorized, "invalid_client", 7000215,
			"Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", client)
	}
	e.mu.Lock()
	ends := e.now().Add(e.o.TokenLife)
	e.mu.Unlock()
	return answer(http.StatusOK, map[string]any{
		"token_type": "Bearer", "expires_in": int(e.o.TokenLife.Seconds()), "ext_expires_in": int(e.o.TokenLife.Seconds()), "access_token": e.issue(ends),
	})
}

// asserted verifies a client's assertion: who signed it, for whom, until when.
// https://learn.microsoft.com/entra/identity-platform/certificate-credentials
func (e *Emulator) asserted(assertion string) error {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return fmt.Errorf("it has %d parts", len(parts))
	}
	var header struct{ Alg, X5t, Kid string }
	var sha256Thumb struct {
		X5t string `json:"x5t#S256"`
	}
	var claims struct {
		Aud, Iss, Sub string
		Exp, Nbf      float64
	}
	for i, into := range []any{&header, &claims} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return fmt.Errorf("part %d: %w", i+1, err)
		}
		if err := json.Unmarshal(data, into); err != nil {
			return fmt.Errorf("part %d: %w", i+1, err)
		}
		if i == 0 {
			if err := json.Unmarshal(data, &sha256Thumb); err != nil {
				return fmt.Errorf("part %d: %w", i+1, err)
			}
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return fmt.Errorf("the signature: %w", err)
	}
	now := float64(time.Now().Unix())
	switch {
	case claims.Iss != e.o.ClientID || claims.Sub != e.o.ClientID:
		return fmt.Errorf("it is issued by %q for %q", claims.Iss, claims.Sub)
	case !strings.EqualFold(claims.Aud, e.URL()+"/"+e.o.Tenant+"/oauth2/v2.0/token"):
		return fmt.Errorf("it is meant for %q", claims.Aud)
	case now > claims.Exp || now+300 < claims.Nbf:
		return fmt.Errorf("it is not valid now")
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	for _, c := range e.o.Certificates {
		one, two := sha1.Sum(c.Raw), sha256.Sum256(c.Raw)
		thumbs := []string{base64.RawURLEncoding.EncodeToString(one[:]), base64.StdEncoding.EncodeToString(one[:]), base64.RawURLEncoding.EncodeToString(two[:]), base64.StdEncoding.EncodeToString(two[:])}
		if !slices.Contains(thumbs, header.X5t) && !slices.Contains(thumbs, sha256Thumb.X5t) {
			continue
		}
		key, ok := c.PublicKey.(*rsa.PublicKey)
		if !ok {
			return fmt.Errorf("the certificate's key is not RSA")
		}
		switch header.Alg {
		case "RS256":
			err = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature)
		case "PS256":
			err = rsa.VerifyPSS(key, crypto.SHA256, sum[:], signature, nil)
		default:
			return fmt.Errorf("its algorithm is %q", header.Alg)
		}
		return err
	}
	return fmt.Errorf("no such certificate")
}

// issue makes a token that says itself until when it is good.
func (e *Emulator) issue(ends time.Time) string {
	enc := base64.RawURLEncoding
	head := enc.EncodeToString([]byte(`{"typ":"JWT","alg":"HS256"}`))
	claims, err := json.Marshal(map[string]any{
		"aud": e.URL(), "iss": e.URL() + "/" + e.o.Tenant, "tid": e.o.Tenant, "appid": e.o.ClientID, "oid": e.o.ClientID, "exp": ends.Unix(),
	})
	if err != nil {
		return ""
	}
	signed := head + "." + enc.EncodeToString(claims)
	return signed + "." + enc.EncodeToString(e.sign(signed))
}

func (e *Emulator) sign(text string) []byte {
	m := hmac.New(sha256.New, e.key)
	_, _ = m.Write([]byte(text)) // never fails
	return m.Sum(nil)
}

// authorize checks the token of a call.
func (e *Emulator) authorize(h http.Header) error {
	text, ok := strings.CutPrefix(h.Get("Authorization"), "Bearer ")
	if !ok {
		return problem(http.StatusUnauthorized, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
	}
	signed, signature, ok := cutLast(text, ".")
	given, err := base64.RawURLEncoding.DecodeString(signature)
	if !ok || err != nil || !hmac.Equal(given, e.sign(signed)) {
		return problem(http.StatusUnauthorized, "InvalidAuthenticationToken", "The access token is invalid.")
	}
	_, payload, _ := strings.Cut(signed, ".")
	var claims struct{ Exp int64 }
	data, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(data, &claims) != nil {
		return problem(http.StatusUnauthorized, "InvalidAuthenticationToken", "The access token is invalid.")
	}
	e.mu.Lock()
	now := e.now()
	e.mu.Unlock()
	if ends := time.Unix(claims.Exp, 0).UTC(); now.After(ends) {
		return problem(http.StatusUnauthorized, "ExpiredAuthenticationToken", "The access token expiry UTC time '%s' is earlier than current UTC time '%s'.",
			ends.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	return nil
}

func cutLast(text, sep string) (before, after string, found bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(sep):], true
}
