// Package transfer moves trees of files between two ends over HTTP.
package transfer
