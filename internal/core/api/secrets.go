package api

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/openworkload/skyport"
)

// SecretValue is the value of a secret. It goes one way: to core. It does not
// show when it is printed or logged.
type SecretValue struct {
	Username string
	Password string
	CA       string
}

// String keeps the value to itself.
func (SecretValue) String() string { return "(a secret)" }

// GoString keeps the value to itself.
func (SecretValue) GoString() string { return "(a secret)" }

// LogValue keeps the value to itself.
func (SecretValue) LogValue() slog.Value { return slog.StringValue("(a secret)") }

// secretRoutes keep what users leave with core. Values are never returned.
func (a *api) secretRoutes() {
	tags := []string{"Secrets"}

	operation(a, huma.Operation{
		OperationID: "list-secrets", Method: http.MethodGet, Path: "/v1/secrets", Tags: tags,
		Summary: "The caller's secrets, without their values",
	}, func(ctx context.Context, _ *struct{}) (*body[secrets], error) {
		list, err := a.Backend.Secrets(ctx, callerOf(ctx).ID)
		return &body[secrets]{Body: secrets{notNil(list)}}, err
	})
	operation(a, huma.Operation{
		OperationID: "get-secret", Method: http.MethodGet, Path: "/v1/secrets/{kind}/{name}", Tags: tags,
		Summary: "One of the caller's secrets, without its value",
	}, func(ctx context.Context, in *SecretPath) (*body[skyport.Secret], error) {
		return answerWith(a.Backend.Secret(ctx, callerOf(ctx).ID, in.Kind, in.Name))
	})
	operation(a, huma.Operation{
		OperationID: "put-secret", Method: http.MethodPut, Path: "/v1/secrets/{kind}/{name}", Tags: tags, MaxBodyBytes: 256 << 10,
		Summary:     "Keep a secret, or replace its value",
		Description: "It is kept sealed, handed over to the nodes that need it, and never returned.",
	}, func(ctx context.Context, in *struct {
		SecretPath
		Body secretBody
	},
	) (*body[skyport.Secret], error) {
		return answerWith(a.Backend.PutSecret(ctx, callerOf(ctx).ID, in.Kind, in.Name, SecretValue(in.Body)))
	})
	operation(a, huma.Operation{
		OperationID: "delete-secret", Method: http.MethodDelete, Path: "/v1/secrets/{kind}/{name}", Tags: tags,
		Summary: "Forget a secret", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *SecretPath) (*struct{}, error) {
		return nil, a.Backend.DeleteSecret(ctx, callerOf(ctx).ID, in.Kind, in.Name)
	})
}

type (
	// SecretPath is exported because huma fills embedded fields by reflection.
	SecretPath struct {
		Kind string `path:"kind" maxLength:"40" doc:"registry"`
		Name string `path:"name" maxLength:"255" doc:"Of a registry: its host, with a port if it has one"`
	}
	secretBody struct {
		Username string `json:"username,omitempty" doc:"Login of the registry; with a password, or absent"`
		Password string `json:"password,omitempty" doc:"Password or token"`
		CA       string `json:"ca,omitempty" doc:"PEM of the certificates that the registry's must chain to; absent: the public ones"`
	}
	secrets struct {
		Secrets []skyport.Secret `json:"secrets"`
	}
)
