package clamd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc/panics"
)

// Timeouts bound the waiting for clamd; a zero field means its default.
type Timeouts struct {
	Dial  time.Duration // to connect; 10 s
	Idle  time.Duration // for clamd to take one chunk of 64 KiB; 30 s
	Reply time.Duration // from the last byte to the verdict, above clamd's MaxScanTime; 5 min
}

// Verdict is what clamd found. Its zero value is no verdict: exactly one of Clean, Infected,
// Unscannable and TooLarge is true.
type Verdict struct {
	Clean    bool
	Infected bool
	// Unscannable means that clamd could not look inside: encrypted, or beyond one of its limits.
	Unscannable bool
	// Signature is the name of the signature that matched, empty if Clean.
	Signature string
	// TooLarge means that the stream exceeds this clamd's StreamMaxLength: it scanned nothing.
	TooLarge bool
	// Bytes is how many were scanned, for comparison with the size of the file.
	Bytes int64
	// Version is that of the signatures in use. It is at most a minute old: they may be newer.
	Version Version
}

// A Trouble is an error of clamd and not of the file: no clamd answers, it is busy, or its disk is full. The scan must be
// repeated later, as often as it takes.
type Trouble struct{ cause error }

func (t *Trouble) Error() string { return "clamd is in trouble: " + t.cause.Error() }

// Unwrap returns the cause.
func (t *Trouble) Unwrap() error { return t.cause }

// A daemon is one clamd. It holds no connection and may be used by several goroutines at once.
type daemon struct {
	name             string // as it was configured
	network, address string
	timeouts         Timeouts
	running          atomic.Int64 // scans
	state            atomic.Pointer[state]
}

// A state is the last answer of a clamd to VERSION.
type state struct {
	asked   time.Time
	version Version
	err     error // why there was no answer
}

func newDaemon(name string, timeouts Timeouts) (*daemon, error) {
	d := &daemon{name: name, timeouts: timeouts}
	if path, ok := strings.CutPrefix(name, "unix:"); ok && strings.HasPrefix(path, "/") {
		d.network, d.address = "unix", "/"+strings.TrimLeft(path, "/")
		return d, nil
	}
	if host, ok := strings.CutPrefix(name, "tcp://"); ok {
		if _, _, err := net.SplitHostPort(host); err == nil {
			d.network, d.address = "tcp", host
			return d, nil
		}
	}
	return nil, fmt.Errorf("clamd address %q is neither unix:/path nor tcp://host:port", name)
}

// scan sends all of r over conn. An error means that there is no verdict: clamd timed out, closed the connection, answered
// something else, or r failed.
func (d *daemon) scan(ctx context.Context, conn net.Conn, r io.Reader) (Verdict, error) {
	d.running.Add(1)
	defer d.running.Add(-1)
	defer closeWith(ctx, conn)()

	// clamd may answer, and close the connection, while the stream is still being sent.
	replies := make(chan reply, 1)
	go func() {
		var r reply
		if p := panics.Try(func() { r = readReply(conn) }); p != nil {
			r.err = p.AsError()
		}
		replies <- r
	}()

	sent, err := d.stream(conn, r, replies)
	var answer reply
	switch {
	case err == nil:
		if err = conn.SetReadDeadline(time.Now().Add(d.timeouts.Reply)); err == nil {
			answer = <-replies
		}
	case errors.Is(err, errAnsweredEarly) || errors.Is(err, errSend):
		_ = conn.SetReadDeadline(time.Now().Add(d.timeouts.Dial)) // the answer, if any, is on its way
		answer = <-replies
		if verdict, judgeErr := judge(answer); judgeErr == nil && !verdict.Clean {
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
		return Verdict{}, d.blame(ctx, fmt.Errorf("scan after %d bytes: %w%s", sent, err, answer.quoted()))
	}
	verdict, err := judge(answer)
	verdict.Bytes = sent
	return verdict, err
}

// blame turns a timeout into a [Trouble] if clamd does not answer a ping either: then it is busy with other files. If it does, this
// file made it time out, which costs the file's job an attempt, as a crash of clamd does.
func (d *daemon) blame(ctx context.Context, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, d.timeouts.Dial)
	defer cancel()
	if _, silent := d.ask(limited, "PING"); silent != nil && ctx.Err() == nil {
		return &Trouble{err}
	}
	return err
}

// judge knows three replies; any other is no verdict.
func judge(answer reply) (Verdict, error) {
	if answer.err != nil {
		return Verdict{}, answer.err
	}
	switch {
	case answer.text == "stream: OK":
		return Verdict{Clean: true}, nil
	case answer.text == "INSTREAM size limit exceeded. ERROR":
		return Verdict{TooLarge: true}, nil
	case strings.Contains(answer.text, "temporary file") && strings.HasSuffix(answer.text, "ERROR"): // its disk is full
		return Verdict{}, &Trouble{fmt.Errorf("clamd says %q", answer.text)}
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

// ask sends a command that has a short answer. It queues behind running scans: 5 s have been seen.
func (d *daemon) ask(ctx context.Context, command string) (string, error) {
	conn, err := d.dial(ctx)
	if err != nil {
		return "", err
	}
	defer closeWith(ctx, conn)()
	if err := d.send(conn, []byte("z"+command+"\x00")); err != nil {
		return "", err
	}
	if err := conn.SetReadDeadline(time.Now().Add(d.timeouts.Idle)); err != nil {
		return "", fmt.Errorf("ask clamd: %w", err)
	}
	answer := readReply(conn)
	if ctx.Err() != nil {
		return "", fmt.Errorf("ask clamd: %w", context.Cause(ctx))
	}
	return answer.text, answer.err
}

func (d *daemon) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: d.timeouts.Dial}
	conn, err := dialer.DialContext(ctx, d.network, d.address)
	if err != nil {
		return nil, fmt.Errorf("reach clamd: %w", err)
	}
	return conn, nil
}
