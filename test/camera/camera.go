// Package camera names the modules whose photos are read in the test that compares Tramo with exiftool. Nothing of
// them is compiled.
package camera

import (
	_ "github.com/bep/imagemeta"
	_ "github.com/evanoberholster/imagemeta"
	_ "github.com/rwcarlsen/goexif/exif"
)
