// Command tramo serves uploads and operates the installation.
package main

import (
	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/cmd/internal/tramo"
)

func main() { cli.Main(tramo.Program()) }
