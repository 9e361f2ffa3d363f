package clamd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tramo/tramo/test/stack"
)

func newTestScanner(t *testing.T, address string, timeouts Timeouts) *Scanner {
	t.Helper()
	scanner, err := New(address, timeouts)
	stack.Must(t, err)
	return scanner
}

func TestScanWithClamd(t *testing.T) {
	t.Parallel()
	scanner := newTestScanner(t, stack.Get(t, ground.Clamd).Address(), Timeouts{})
	for _, c := range []struct {
		name     string
		content  io.Reader
		infected bool
		bytes    int64
	}{
		{"clean", strings.NewReader("hormigón"), false, 9},
		{"eicar", strings.NewReader(stack.EICAR()), true, 68},
		{"empty", strings.NewReader(""), false, 0},
		{"byte by byte", iotest.OneByteReader(strings.NewReader(stack.EICAR())), true, 68},
		{"data with the end", iotest.DataErrReader(strings.NewReader(stack.EICAR())), true, 68},
		{"exactly two chunks", bytes.NewReader(make([]byte, 2*scanChunk)), false, 2 * scanChunk},
		{"100 MiB", io.LimitReader(zeros{}, 100<<20), false, 100 << 20},
	} {
		verdict, err := scanner.Scan(t.Context(), c.content)
		if err != nil || verdict.Infected != c.infected || verdict.Clean == c.infected || verdict.Bytes != c.bytes {
			t.Errorf("%s: %+v, %v", c.name, verdict, err)
		}
		if c.infected && !strings.HasPrefix(verdict.Signature, "Eicar-Test-HDB") {
			t.Errorf("%s: signature %q", c.name, verdict.Signature)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A reader that breaks after the clean half of a file gives no verdict, whatever its error is called.
func TestScanOfABrokenReader(t *testing.T) {
	t.Parallel()
	scanner := newTestScanner(t, stack.Get(t, ground.Clamd).Address(), Timeouts{})
	for _, broken := range []error{errors.New("reset"), io.ErrUnexpectedEOF, fmt.Errorf("wrapped: %w", io.EOF)} {
		for _, sent := range []int64{0, 100, scanChunk, 3*scanChunk + 1} {
			r := io.MultiReader(io.LimitReader(zeros{}, sent), iotest.ErrReader(broken))
			if verdict, err := scanner.Scan(t.Context(), r); !errors.Is(err, broken) || verdict != (Verdict{}) {
				t.Errorf("%v after %d bytes: %+v, %v", broken, sent, verdict, err)
			}
		}
	}
}

// Over clamd's limits there is no clean verdict: over the stream's it is TooLarge, over a file's Unscannable.
func TestScanOverClamdsLimits(t *testing.T) {
	t.Parallel()
	own := startClamd(t, "StreamMaxLength 2M", "MaxFileSize 1M", "MaxScanSize 1M")
	scanner := newTestScanner(t, own.Address(), Timeouts{})
	if verdict, err := scanner.Scan(t.Context(), io.LimitReader(zeros{}, 50<<20)); err != nil || !verdict.TooLarge || verdict.Clean {
		t.Errorf("over StreamMaxLength: %+v, %v", verdict, err)
	}
	verdict, err := scanner.Scan(t.Context(), io.LimitReader(zeros{}, 3<<19))
	if err != nil || !verdict.Unscannable || verdict.Clean || verdict.Infected || !strings.HasPrefix(verdict.Signature, "Heuristics.Limits.Exceeded") {
		t.Errorf("over MaxFileSize: %+v, %v", verdict, err)
	}
}

// takeStream reads an INSTREAM command to its terminating zero and reports whether it came.
func takeStream(conn net.Conn) bool {
	if _, err := io.ReadFull(conn, make([]byte, len("zINSTREAM\x00"))); err != nil {
		return false
	}
	return takeChunks(conn)
}

func takeChunks(conn net.Conn) bool {
	for {
		var length uint32
		if err := binary.Read(conn, binary.BigEndian, &length); err != nil {
			return false
		}
		if length == 0 {
			return true
		}
		if _, err := io.CopyN(io.Discard, conn, int64(length)); err != nil {
			return false
		}
	}
}

func TestOnlyTheExactReplyIsClean(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]Verdict{
		"stream: OK\x00":                                        {Clean: true, Bytes: 5},
		"stream: Win.Test.EICAR_HDB-1 FOUND\x00":                {Infected: true, Signature: "Win.Test.EICAR_HDB-1", Bytes: 5},
		"stream: Heuristics.Encrypted.Zip FOUND\x00":            {Unscannable: true, Signature: "Heuristics.Encrypted.Zip", Bytes: 5},
		"stream: Heuristics.Limits.Exceeded.MaxFiles FOUND\x00": {Unscannable: true, Signature: "Heuristics.Limits.Exceeded.MaxFiles", Bytes: 5},
		"stream: Heuristics.Phishing.Email FOUND\x00":           {Infected: true, Signature: "Heuristics.Phishing.Email", Bytes: 5},
		"":                           {},
		"stream: OK":                 {},
		"stream: OK\n\x00":           {},
		"OK\x00":                     {},
		"stream: ok\x00":             {},
		"stream:  FOUND\x00":         {},
		"stream: TIMED OUT\x00":      {},
		"COMMAND READ TIMED OUT\x00": {},
		"stream: Can't allocate memory ERROR\x00":            {},
		"INSTREAM size limit exceeded. ERROR\x00":            {TooLarge: true, Bytes: 5},
		"INSTREAM: Can't write to temporary file. ERROR\x00": {},
		"UNKNOWN COMMAND\x00":                                {},
		strings.Repeat("x", 100_000):                         {},
	} {
		address := "tcp://" + stack.Listen(t, func(conn net.Conn) {
			if takeStream(conn) {
				_, _ = io.WriteString(conn, said)
			}
		})
		got, err := newTestScanner(t, address, Timeouts{Idle: 50 * time.Millisecond}).Scan(t.Context(), strings.NewReader("bytes"))
		wantError := want == Verdict{}
		if (err != nil) != wantError {
			t.Errorf("%.40q: %v", said, err)
		}
		if !wantError && got != want || wantError && (got != want) {
			t.Errorf("%.40q: %+v, want %+v", said, got, want)
		}
	}
}

// clamd may speak before it has everything: a virus is believed, "OK" is not.
func TestEarlyAnswers(t *testing.T) {
	t.Parallel()
	for said, infected := range map[string]bool{
		"stream: OK\x00": false, "": false, "stream: Early FOUND\x00": true,
	} {
		address := "tcp://" + stack.Listen(t, func(conn net.Conn) {
			_, _ = io.ReadFull(conn, make([]byte, 100))
			_, _ = io.WriteString(conn, said)
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		})
		verdict, err := newTestScanner(t, address, Timeouts{Idle: 50 * time.Millisecond}).Scan(t.Context(), zeros{})
		if verdict.Infected != infected || verdict.Clean || (err == nil) != infected {
			t.Errorf("%q: %+v, %v", said, verdict, err)
		}
	}
}

// A clamd that takes nothing, or says nothing, is given up; so is one whose caller no longer waits.
func TestSilence(t *testing.T) {
	t.Parallel()
	deaf := "tcp://" + stack.Listen(t, func(conn net.Conn) { <-t.Context().Done() })
	mute := "tcp://" + stack.Listen(t, func(conn net.Conn) {
		takeStream(conn)
		<-t.Context().Done()
	})
	short := Timeouts{Dial: 100 * time.Millisecond, Idle: 100 * time.Millisecond, Reply: 100 * time.Millisecond}
	if _, err := newTestScanner(t, deaf, short).Scan(t.Context(), zeros{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deaf: %v", err)
	}
	if _, err := newTestScanner(t, mute, short).Scan(t.Context(), strings.NewReader("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("mute: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for name, address := range map[string]string{"deaf": deaf, "mute": mute} {
		if _, err := newTestScanner(t, address, Timeouts{}).Scan(ctx, strings.NewReader("x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, cancelled: %v", name, err)
		}
		if err := newTestScanner(t, address, Timeouts{}).Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, ping cancelled: %v", name, err)
		}
	}
}

func TestScannerAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "/run/clamd", "unix:", "unix:relative", "tcp://", "tcp://host", "http://host:1", "tcp://a:1,", "tcp://a:1,b"} {
		if _, err := New(address, Timeouts{}); err == nil {
			t.Errorf("%q was accepted", address)
		}
	}
	for _, address := range []string{"unix:/run/clamd.ctl", "unix:///run/clamd.ctl", "tcp://clamd:3310", "tcp://[::1]:3310", "tcp://a:1, tcp://b:1"} {
		if _, err := New(address, Timeouts{}); err != nil {
			t.Errorf("%q: %v", address, err)
		}
	}
	nobody := newTestScanner(t, "unix:"+t.TempDir()+"/nobody,unix:/nowhere", Timeouts{})
	if _, err := nobody.Scan(t.Context(), strings.NewReader("x")); !isTrouble(err) {
		t.Errorf("without a clamd: %v, want a Trouble", err)
	}
	if err := nobody.Ping(t.Context()); err == nil {
		t.Error("nobody answers a ping")
	}
}

func isTrouble(err error) bool {
	trouble := new(Trouble)
	return errors.As(err, &trouble)
}

// clean answers each scan with OK and each VERSION with version, and counts the scans.
func clean(t *testing.T, version string) (address string, scans *atomic.Int64) {
	t.Helper()
	scans = new(atomic.Int64)
	return "tcp://" + stack.Listen(t, func(conn net.Conn) {
		command, err := bufio.NewReader(io.LimitReader(conn, 9)).ReadString(0)
		switch {
		case command == "zVERSION\x00":
			_, _ = io.WriteString(conn, version+"\x00")
		case err == io.EOF && command == "zINSTREAM":
			_, _ = io.ReadFull(conn, make([]byte, 1))
			if takeChunks(conn) {
				scans.Add(1)
				_, _ = io.WriteString(conn, "stream: OK\x00")
			}
		}
	}), scans
}

// One clamd that is away is passed over, without a byte of the file being lost for the next; it is asked last until it
// is back.
func TestOneOfTwoIsAway(t *testing.T) {
	t.Parallel()
	first, second := startClamd(t), startClamd(t)
	scanner := newTestScanner(t, first.Address()+","+second.Address(), Timeouts{})
	first.Kill()
	for range 3 {
		verdict, err := scanner.Scan(t.Context(), strings.NewReader(stack.EICAR()))
		if err != nil || !verdict.Infected {
			t.Fatalf("%+v, %v", verdict, err)
		}
	}
	if scanner.order()[0].name != second.Address() {
		t.Error("the one that is away is asked first")
	}
	if err := scanner.Ping(t.Context()); err != nil {
		t.Errorf("one answers: %v", err)
	}
	second.Kill()
	if _, err := scanner.Scan(t.Context(), strings.NewReader("x")); !isTrouble(err) {
		t.Errorf("with none: %v, want a Trouble", err)
	}
	stack.Must(t, first.Restart(t.Context()))
	if verdict, err := scanner.Scan(t.Context(), strings.NewReader("x")); err != nil || !verdict.Clean {
		t.Errorf("back again: %+v, %v", verdict, err)
	}
}

// Scans go to whoever has the fewest of them.
func TestScansAreSpread(t *testing.T) {
	t.Parallel()
	a, atA := clean(t, "ClamAV 1")
	b, atB := clean(t, "ClamAV 1")
	scanner := newTestScanner(t, a+","+b, Timeouts{})
	held, release := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := scanner.Scan(t.Context(), held)
		done <- err
	}()
	_, _ = release.Write([]byte("x")) // returns once the first scan reads
	if _, err := scanner.Scan(t.Context(), strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if atA.Load() != 0 || atB.Load() != 1 {
		t.Errorf("%d scans at the busy one, %d at the idle one", atA.Load(), atB.Load())
	}
	_ = release.Close()
	if err := stack.Receive(t, "end of the first scan", done); err != nil || atA.Load() != 1 {
		t.Errorf("the first ended with %v, %d scans", err, atA.Load())
	}
}

// Silence is the file's fault while clamd has time for a ping, and clamd's if it has not. A full disk is clamd's.
func TestWhoIsToBlame(t *testing.T) {
	t.Parallel()
	short := Timeouts{Dial: 200 * time.Millisecond, Idle: 200 * time.Millisecond, Reply: 200 * time.Millisecond}
	mute := "tcp://" + stack.Listen(t, func(conn net.Conn) {
		takeStream(conn)
		<-t.Context().Done()
	})
	pings := "tcp://" + stack.Listen(t, func(conn net.Conn) {
		command := make([]byte, 6)
		if _, err := io.ReadFull(conn, command); err == nil && string(command) == "zPING\x00" {
			_, _ = io.WriteString(conn, "PONG\x00")
			return
		}
		<-t.Context().Done()
	})
	full := "tcp://" + stack.Listen(t, func(conn net.Conn) {
		if takeStream(conn) {
			_, _ = io.WriteString(conn, "INSTREAM: Can't write to temporary file. ERROR\x00")
		}
	})
	for name, c := range map[string]struct {
		address string
		trouble bool
	}{"mute": {mute, true}, "answers pings": {pings, false}, "disk is full": {full, true}} {
		if _, err := newTestScanner(t, c.address, short).Scan(t.Context(), strings.NewReader("x")); err == nil || isTrouble(err) != c.trouble {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The signatures' version stands beside the verdict.
func TestVersion(t *testing.T) {
	t.Parallel()
	signed := time.Date(2026, 11, 21, 9, 25, 5, 0, time.UTC)
	for said, want := range map[string]Version{
		"ClamAV 1.4.3/27500/Sat Nov 21 09:25:05 2026": {"ClamAV 1.4.3", 27500, signed},
		"ClamAV 1.4.3/27500/yesterday":                {Engine: "ClamAV 1.4.3", Signatures: 27500},
		"ClamAV 1.4.3":                                {Engine: "ClamAV 1.4.3"},
		"ClamAV 1.4.3/-1/Sat Nov 21 09:25:05 2026":    {Engine: "ClamAV 1.4.3"},
	} {
		address, _ := clean(t, said)
		verdict, err := newTestScanner(t, address, Timeouts{}).Scan(t.Context(), strings.NewReader("x"))
		if err != nil || verdict.Version != want {
			t.Errorf("%s: %+v, %v", said, verdict.Version, err)
		}
	}
	real, err := newTestScanner(t, stack.Get(t, ground.Clamd).Address(), Timeouts{}).Version(t.Context())
	if err != nil || !strings.HasPrefix(real.Engine, "ClamAV ") {
		t.Errorf("the real one says %+v, %v", real, err)
	}
}

// The metrics tell which clamd is away, so that an alert can be made of it.
func TestMetrics(t *testing.T) {
	t.Parallel()
	up, _ := clean(t, "ClamAV 1.4.3/27500/Sat Nov 21 09:25:05 2026")
	scanner := newTestScanner(t, up+",unix:/nowhere", Timeouts{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		scanner.Run(ctx)
	}()
	stack.Until(t, "answer of each clamd", func() bool {
		return scanner.daemons[0].state.Load() != nil && scanner.daemons[1].state.Load() != nil
	})
	cancel()
	stack.Receive(t, "end of the questions", ended)
	want := fmt.Sprintf(`
# HELP tramo_clamd_up Whether the clamd at this address answered last time. While none does, uploads wait: alert on max(tramo_clamd_up) == 0.
# TYPE tramo_clamd_up gauge
tramo_clamd_up{address="%s"} 1
tramo_clamd_up{address="unix:/nowhere"} 0
`, up)
	if err := testutil.CollectAndCompare(scanner, strings.NewReader(want), "tramo_clamd_up"); err != nil {
		t.Error(err)
	}
	stack.Want(t, testutil.CollectAndCount(scanner, "tramo_clamd_signatures_timestamp_seconds"), 1, "number of ages of signatures")
}
