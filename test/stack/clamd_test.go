package stack_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

func TestClamdKnowsEICAR(t *testing.T) {
	t.Parallel()
	if got := scan(t, stack.Get(t, ground.Clamd), []byte(stack.EICAR())); !strings.HasSuffix(got, "FOUND") {
		t.Errorf("clamd says %q of the EICAR file, want FOUND", got)
	}
}

// Debian's limits end at 25 MB, beyond which clamd either hangs up or says OK unread.
func TestClamdReadsALargeStream(t *testing.T) {
	t.Parallel()
	stack.Want(t, scan(t, stack.Get(t, ground.Clamd), make([]byte, 101<<20)), "stream: OK", "clamd's answer to 101 MiB of zeros")
}

func TestClamdRestarts(t *testing.T) {
	t.Parallel()
	clamd, err := stack.StartClamd(t.Context(), stack.ClamdConfig{Log: t.Output()})
	stack.Must(t, err)
	clamd.Kill()
	stack.Must(t, clamd.Restart(t.Context()))
	stack.Want(t, scan(t, clamd, []byte("harmless")), "stream: OK", "clamd's answer")
	stack.Must(t, clamd.Stop())
	stack.Must(t, clamd.Stop())
}

func scan(t *testing.T, clamd *stack.Clamd, data []byte) string {
	t.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(clamd.Address(), "unix:"))
	stack.Must(t, err)
	defer conn.Close()
	stack.Must(t, conn.SetDeadline(time.Now().Add(stack.Patience)))
	_, err = io.WriteString(conn, "zINSTREAM\x00")
	stack.Must(t, err)
	for len(data) > 0 {
		n := min(64<<10, len(data))
		_, err := conn.Write(binary.BigEndian.AppendUint32(nil, uint32(n)))
		stack.Must(t, err)
		_, err = conn.Write(data[:n])
		stack.Must(t, err)
		data = data[n:]
	}
	_, err = conn.Write([]byte{0, 0, 0, 0})
	stack.Must(t, err)
	answer, err := io.ReadAll(conn)
	stack.Must(t, err)
	return string(bytes.TrimRight(answer, "\x00"))
}
