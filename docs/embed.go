// Package docs holds the pages of documentation that the server shows, so that what it shows and what stands in the
// repository are the same text. It refuses to hold anything else.
package docs

import _ "embed"

// Problems describes every problem that the API answers with: Markdown, a section each.
//
//go:embed reference/problems.md
var Problems []byte
