// Package clamd asks ClamAV whether bytes are harmless. Only its exact words count as a verdict; whatever else it says, or
// fails to say, means that nothing was scanned.
package clamd

import (
	"bytes"
	"cmp"
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
	scanChunk      = 64 << 10
	scanReplyLimit = 4 << 10
)

// Timeouts bound the waiting for clamd; a zero field means its default.
type Timeouts struct {
	Dial  time.Duration // to connect; 10 s
	Idle  time.Duration // for clamd to take one chunk of 64 KiB; 30 s
	Reply time.Duration // from the last byte to the verdict, above clamd's MaxScanTime; 5 min
}

// Verdict is what clamd found. Its zero value is no verdict: exactly one of Clean, Infected and
// Unscannable is true.
type Verdict struct {
	Clean    bool
	Infected bool
	// Unscannable means that clamd could not look inside: encrypted, or beyond one of its limits.
	Unscannable bool
	// Signature is the name of what was found, empty if Clean.
	Signature string
	// Bytes is how many were scanned, for comparison with how many there should be.
	Bytes int64
}

// Scanner asks a clamd over its INSTREAM command (clamd(8), COMMANDS). It holds no connection and may be
// used by several goroutines at once.
type Scanner struct {
	network, address string
	timeouts         Timeouts
}

// New returns a Scanner for "unix:/path/to/socket" or "tcp://host:port".
func New(address string, timeouts Timeouts) (*Scanner, error) {
	scanner := &Scanner{timeouts: Timeouts{
		Dial:  cmp.Or(timeouts.Dial, 10*time.Second),
		Idle:  cmp.Or(timeouts.Idle, 30*time.Second),
		Reply: cmp.Or(timeouts.Reply, 5*time.Minute),
	}}
	if path, ok := strings.CutPrefix(address, "unix:"); ok && strings.HasPrefix(path, "/") {
		scanner.network, scanner.address = "unix", "/"+strings.TrimLeft(path, "/")
		return scanner, nil
	}
	if host, ok := strings.CutPrefix(address, "tcp://"); ok {
		if _, _, err := net.SplitHostPort(host); err == nil {
			scanner.network, scanner.address = "tcp", host
			return scanner, nil
		}
	}
	return nil, fmt.Errorf("clamd address %q is neither unix:/path nor tcp://host:port", address)
}

// Scan sends everything that r gives to clamd. An error means that there is no verdict and that the
// scan is to be repeated: clamd timed out, hung up, refused the size, said something else than a
// verdict, or r failed.
func (s *Scanner) Scan(ctx context.Context, r io.Reader) (Verdict, error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return Verdict{}, err
	}
	defer closeWith(ctx, conn)()

	// clamd may answer, and hang up, while we are still sending.
	replies := make(chan reply, 1)
	go func() { replies <- readReply(conn) }()

	sent, err := s.stream(conn, r, replies)
	var answer reply
	switch {
	case err == nil:
		if err = conn.SetReadDeadline(time.Now().Add(s.timeouts.Reply)); err == nil {
			answer = <-replies
		}
	case errors.Is(err, errAnsweredEarly) || errors.Is(err, errSend):
		_ = conn.SetReadDeadline(time.Now().Add(s.timeouts.Dial)) // the answer, if any, is on its way
		answer = <-replies
		if verdict, judgeErr := judge(answer); judgeErr == nil && verdict.Infected {
			return verdict, nil
		}
	}
	if err == nil {
		err = answer.err
	}
	if ctx.Err() != nil {
		return Verdict{}, fmt.Errorf("scan: %w", context.Cause(ctx))
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("scan after %d bytes: %w%s", sent, err, answer.quoted())
	}
	verdict, err := judge(answer)
	verdict.Bytes = sent
	return verdict, err
}

// ErrAway says that no connection to clamd could be had, so that nothing was scanned.
var ErrAway = errors.New("reach clamd")

var (
	errAnsweredEarly = errors.New("clamd answered before the end")
	errSend          = errors.New("send to clamd")
)

// stream sends INSTREAM's chunks: a length of four bytes, big-endian, and the bytes; a length of zero
// ends it. That zero is sent only when r ended with io.EOF itself: after any other error clamd
// would take half a file for the whole.
func (s *Scanner) stream(conn net.Conn, r io.Reader, replies chan reply) (sent int64, err error) {
	if err := s.send(conn, []byte("zINSTREAM\x00")); err != nil {
		return 0, err
	}
	buffer := make([]byte, 4+scanChunk)
	for {
		n, readErr := fill(r, buffer[4:])
		// Only io.EOF itself ends a file (io.Reader); an error that wraps it is a broken download.
		ended := readErr == io.EOF //nolint:errorlint // see above
		if readErr != nil && !ended {
			return sent, fmt.Errorf("read what is to be scanned: %w", readErr)
		}
		if early := takeEarly(replies); early {
			return sent, errAnsweredEarly
		}
		if n > 0 {
			binary.BigEndian.PutUint32(buffer, uint32(n))
			if err := s.send(conn, buffer[:4+n]); err != nil {
				return sent, err
			}
			sent += int64(n)
		}
		if ended {
			return sent, s.send(conn, make([]byte, 4))
		}
	}
}

// takeEarly looks for a reply and leaves it where it is.
func takeEarly(replies chan reply) bool {
	select {
	case early := <-replies:
		replies <- early
		return true
	default:
		return false
	}
}

func (s *Scanner) send(conn net.Conn, data []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(s.timeouts.Idle)); err != nil {
		return fmt.Errorf("%w: %w", errSend, err)
	}
	if _, err := conn.Write(data); err != nil {
		return fmt.Errorf("%w: %w", errSend, err)
	}
	return nil
}

// fill reads until buffer is full or r fails. io.ReadFull would turn the io.EOF that ends a file
// into the io.ErrUnexpectedEOF that a broken download gives, and the two must not be mistaken.
func fill(r io.Reader, buffer []byte) (n int, err error) {
	for n < len(buffer) && err == nil {
		var m int
		m, err = r.Read(buffer[n:])
		n += m
	}
	return n, err
}

// reply is what clamd said before it hung up.
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
	var text []byte
	buffer := make([]byte, 512)
	for len(text) < scanReplyLimit {
		n, err := conn.Read(buffer)
		text = append(text, buffer[:n]...)
		if end := bytes.IndexByte(text, 0); end >= 0 {
			return reply{text: string(text[:end])}
		}
		if err != nil {
			return reply{string(text), fmt.Errorf("read clamd's reply: %w", err)}
		}
	}
	return reply{string(text), errors.New("clamd's reply has no end")}
}

// judge knows two replies; whatever else clamd says is no verdict.
func judge(answer reply) (Verdict, error) {
	if answer.err != nil {
		return Verdict{}, answer.err
	}
	if answer.text == "stream: OK" {
		return Verdict{Clean: true}, nil
	}
	name, ok := strings.CutPrefix(answer.text, "stream: ")
	name, found := strings.CutSuffix(name, " FOUND")
	if !ok || !found || name == "" {
		return Verdict{}, fmt.Errorf("clamd gives no verdict: %q", answer.text)
	}
	for _, heuristic := range []string{"Heuristics.Limits.Exceeded", "Heuristics.Encrypted"} {
		if strings.HasPrefix(name, heuristic) {
			return Verdict{Unscannable: true, Signature: name}, nil
		}
	}
	return Verdict{Infected: true, Signature: name}, nil
}

// Ping asks whether clamd answers. It queues behind running scans: 5 s have been seen.
func (s *Scanner) Ping(ctx context.Context) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer closeWith(ctx, conn)()
	if err := s.send(conn, []byte("zPING\x00")); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(s.timeouts.Idle)); err != nil {
		return fmt.Errorf("ping clamd: %w", err)
	}
	answer := readReply(conn)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ping clamd: %w", context.Cause(ctx))
	case answer.err != nil:
		return answer.err
	case answer.text != "PONG":
		return fmt.Errorf("clamd answers a ping with %q", answer.text)
	}
	return nil
}

func (s *Scanner) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: s.timeouts.Dial}
	conn, err := dialer.DialContext(ctx, s.network, s.address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	return conn, nil
}

// closeWith closes conn when ctx ends, which unblocks every read and write, and returns what closes it
// otherwise.
func closeWith(ctx context.Context, conn net.Conn) func() {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return func() {
		stop()
		_ = conn.Close()
	}
}
