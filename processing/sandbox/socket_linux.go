package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// socketPair returns our end of a channel to a child, and the child's: whole messages, in order, an end when the other has gone.
func socketPair() (*net.UnixConn, *os.File, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make the child's socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "socket"), os.NewFile(uintptr(ends[1]), "socket")
	defer func() { _ = ours.Close() }() // FileConn has its own
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make the child's socket: %w", err), theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// send sends the child a request, the file, and the pipe for the answer, whose other end it returns. A pipe of its own means
// that no answer can be taken for another file's.
func (c *child) send(order []byte, file *os.File) (*os.File, error) {
	input, err := reopen(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = input.Close() }()
	output, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the child's pipe: %w", err)
	}
	defer func() { _ = theirs.Close() }()
	c.stderr.forget()
	rights := unix.UnixRights(int(input.Fd()), int(theirs.Fd()))
	if _, _, err := c.socket.WriteMsgUnix(order, rights, nil); err != nil {
		_ = output.Close()
		return nil, fmt.Errorf("send the request: %w", err)
	}
	return output, nil
}

// receive waits for a request on the child's side, whose socket is its standard input. The end is io.EOF.
func receive() (request []byte, input, output *os.File, err error) {
	request = make([]byte, requestLimit)
	rights := make([]byte, unix.CmsgSpace(2*4))
	var n, m int
	for {
		n, m, _, _, err = unix.Recvmsg(0, request, rights, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("receive a request: %w", err)
	}
	if n == 0 {
		return nil, nil, nil, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(rights[:m])
	if err != nil || len(messages) != 1 {
		return nil, nil, nil, fmt.Errorf("a request with %d control messages: %w", len(messages), err)
	}
	files, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(files) != 2 {
		return nil, nil, nil, fmt.Errorf("a request with %d files: %w", len(files), err)
	}
	return request[:n], os.NewFile(uintptr(files[0]), "input"), os.NewFile(uintptr(files[1]), "output"), nil
}

// mapFile maps a file read-only. Its pages count against no limit, and are out of the garbage
// collector's reach while C reads them.
func mapFile(file *os.File) ([]byte, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		return nil, nil
	}
	return unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
}

// unmapFile makes the bytes of a file unreachable before the next one comes.
func unmapFile(data []byte) {
	if data == nil {
		return
	}
	if err := unix.Munmap(data); err != nil {
		panic(err) // only of a slice that is no mapping
	}
}
