// Command tramo-dev runs all of Tramo on one machine: a private Postgres, an S3 server, clamd, tramo serve and
// tramo-worker. It is for development and for trying Tramo out, not for deployment.
package main

import (
	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/cmd/internal/dev"
)

func main() { cli.Main(dev.Program()) }
