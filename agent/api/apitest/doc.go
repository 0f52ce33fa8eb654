// Package apitest runs the API server over a Backend in memory, with certificates made for the occasion: for tests of the API, of
// kubectl against it, and of the command line.
package apitest
