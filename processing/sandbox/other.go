//go:build !linux

package sandbox

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"time"
)

// errNeedsLinux: other systems have nothing that confines a decoder.
var errNeedsLinux = errors.New("reading untrusted files needs Linux")

type process struct {
	cmd    *exec.Cmd
	stderr words
	group  *cgroup
	exited chan struct{}
	err    error
}

func (b *Box) start(*exec.Cmd, childOrder) (*process, error)       { return nil, errNeedsLinux }
func (*process) kill()                                             {}
func (*process) end()                                              {}
func (*process) cpuTime() time.Duration                            { return 0 }
func usedUp(*os.ProcessState, time.Duration) (time.Duration, bool) { return 0, false }
func reopen(*os.File) (*os.File, error)                            { return nil, errNeedsLinux }
func socketPair() (*net.UnixConn, *os.File, error)                 { return nil, nil, errNeedsLinux }
func (*child) send([]byte, *os.File) (*os.File, error)             { return nil, errNeedsLinux }
func receive() (request []byte, input, output *os.File, err error) {
	return nil, nil, nil, errNeedsLinux
}
func mapFile(*os.File) ([]byte, error)             { return nil, errNeedsLinux }
func unmapFile([]byte)                             {}
func confineChild(childOrder) (Confinement, error) { return Confinement{}, errNeedsLinux }
func closeInherited(int) error                     { return errNeedsLinux }
func becomeTool(childOrder) error                  { return errNeedsLinux }

type (
	cgroups struct{}
	cgroup  struct{}
)

func findCgroups([]string) *cgroups { return nil }
func (*cgroup) String() string      { return "" }
func (*cgroup) wasFull() bool       { return false }
