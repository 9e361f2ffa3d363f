// Package deploy holds what operators copy into their own installation, so that the tests and tramo-dev run with the very same.
// It is text, and imports nothing of ours.
package deploy

import _ "embed"

// Clamd is the part of clamd.conf that decides what a verdict means.
//
//go:embed clamav/clamd.conf
var Clamd string
