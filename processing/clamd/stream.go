package clamd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const (
	scanChunk  = 64 << 10
	replyLimit = 4 << 10
)

var (
	errAnsweredEarly = errors.New("clamd answered before the end")
	errSend          = errors.New("send to clamd")
)

// stream sends INSTREAM's chunks: a length of four bytes, big-endian, and the bytes; a length of zero
// ends it. That zero is sent only when r ended with io.EOF itself: after any other error clamd
// would take half a file for the whole.
func (d *daemon) stream(conn net.Conn, r io.Reader, replies chan reply) (sent int64, err error) {
	if err := d.send(conn, []byte("zINSTREAM\x00")); err != nil {
		return 0, err
	}
	buffer := make([]byte, 4+scanChunk)
	for {
		n, readErr := fill(r, buffer[4:])
		// Only io.EOF itself ends a file (io.Reader); an error that wraps it is a broken download.
		ended := readErr == io.EOF //nolint:errorlint // see above
		if readErr != nil && !ended {
			return sent, fmt.Errorf("read the bytes to scan: %w", readErr)
		}
		if len(replies) > 0 { // and stays there
			return sent, errAnsweredEarly
		}
		if n > 0 {
			binary.BigEndian.PutUint32(buffer, uint32(n))
			if err := d.send(conn, buffer[:4+n]); err != nil {
				return sent, err
			}
			sent += int64(n)
		}
		if ended {
			return sent, d.send(conn, make([]byte, 4))
		}
	}
}

func (d *daemon) send(conn net.Conn, data []byte) error {
	err := conn.SetWriteDeadline(time.Now().Add(d.timeouts.Idle))
	if err == nil {
		_, err = conn.Write(data)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errSend, err)
	}
	return nil
}

// fill reads until buffer is full or r fails. io.ReadFull would turn the io.EOF that ends a file
// into the io.ErrUnexpectedEOF of a broken download, and the two must not be confused.
func fill(r io.Reader, buffer []byte) (n int, err error) {
	for n < len(buffer) && err == nil {
		var m int
		m, err = r.Read(buffer[n:])
		n += m
	}
	return n, err
}

// reply is what clamd sent before it closed the connection.
type reply struct {
	text string
	err  error
}

func (r reply) quoted() string {
	if r.text == "" {
		return ""
	}
	return fmt.Sprintf(" (clamd says %q)", r.text)
}

// readReply reads one reply, which ends with a NUL as the command did.
func readReply(conn net.Conn) reply {
	text, err := bufio.NewReader(io.LimitReader(conn, replyLimit)).ReadString(0)
	if err != nil {
		return reply{text, fmt.Errorf("read clamd's reply: %w", err)}
	}
	return reply{text: strings.TrimSuffix(text, "\x00")}
}

// closeWith closes conn when ctx ends, which unblocks every read and write, and returns a function that
// closes it otherwise.
func closeWith(ctx context.Context, conn net.Conn) func() {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return func() {
		stop()
		_ = conn.Close()
	}
}
