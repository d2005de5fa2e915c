// Package template evaluates the deployment templates of Azure Resource Manager:
// parameters, variables, expressions, copy loops, conditions, the order that
// dependsOn and reference give, and outputs. It knows no resource type and makes
// nothing: it tells which resources are wanted, in which order, and what their
// bodies say once those before them exist.
//
// Errors have the codes and texts that Resource Manager gives.
//
// The language: https://learn.microsoft.com/azure/azure-resource-manager/templates/syntax
// and https://learn.microsoft.com/azure/azure-resource-manager/templates/template-functions
package template
