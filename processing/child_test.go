package processing_test

import (
	"fmt"
	"os"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/vips"
)

// The test binary is its own child, as the worker is. An init and not TestMain, which the package's other tests have.
func init() {
	if len(os.Args) < 3 || os.Args[1] != "examine" {
		return
	}
	if err := examine.ServeChild(os.Args[2:], vips.Render); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
