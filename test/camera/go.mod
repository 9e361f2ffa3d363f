// Real photos of many cameras, which other projects test their readers with: their modules carry them, so no
// binaries are kept here. Apart from the product: what these modules depend on is not ours.
module github.com/tramo/tramo/test/camera

go 1.26.0

require (
	github.com/bep/imagemeta v1.0.1
	github.com/evanoberholster/imagemeta v0.3.1
	github.com/rwcarlsen/goexif v0.0.0-20190401172101-9e8deecbddbd
)

require (
	github.com/mattn/go-colorable v0.1.13 // indirect
	github.com/mattn/go-isatty v0.0.17 // indirect
	github.com/philhofer/fwd v1.1.2 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/rs/zerolog v1.29.0 // indirect
	github.com/tinylib/msgp v1.1.8 // indirect
	golang.org/x/sys v0.5.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)
