package vips_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// The compiler reads what cgo gives it from no directory, and looks for "decode.h" where pkg-config says before it looks here:
// on Debian 13 it finds libwebp's.
func TestHeadersHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	stack.Must(t, err)
	included := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		stack.Must(t, err)
		for _, m := range regexp.MustCompile(`(?m)^// #include "(.*)"$`).FindAllStringSubmatch(string(text), -1) {
			included++
			if !strings.HasPrefix(m[1], "tramo_") {
				t.Errorf("%s includes %q, which a library could have, too", file, m[1])
			}
		}
	}
	if included == 0 {
		t.Error("no header is included")
	}
}
