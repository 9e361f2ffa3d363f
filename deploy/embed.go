// Package deploy holds configuration that operators copy into their installation. Tests and tramo-dev run with the same
// files. It is text, and imports nothing of ours.
package deploy

import _ "embed"

// Clamd is the part of clamd.conf that verdicts depend on.
//
//go:embed clamav/clamd.conf
var Clamd string
