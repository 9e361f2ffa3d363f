//go:build !linux

package examine

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// errNeedsLinux: everything else builds and runs elsewhere, but nothing there can hold a decoder.
var errNeedsLinux = errors.New("examining pictures needs Linux")

func confine(Limits) error                  { return errNeedsLinux }
func mapFile(*os.File) ([]byte, error)      { return nil, errNeedsLinux }
func reopen(*os.File) (*os.File, error)     { return nil, errNeedsLinux }
func childAttributes() *syscall.SysProcAttr { return nil }
func startConfined(*exec.Cmd) error         { return errNeedsLinux }
func killGroup(int)                         {}
func awaitExit(int)                         {}
