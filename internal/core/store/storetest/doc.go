// Package storetest is the suite that every backend of the store must pass.
package storetest
