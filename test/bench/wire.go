package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a server may take to save what it has received.
const patience = 5 * time.Second

// A line is a PATCH on a connection of its own, to be slow, silent or cut on.
type line struct {
	*net.TCPConn
}

// open begins a PATCH that promises the bytes from offset to size, and sends none.
func (sv *server) open(ctx context.Context, address string, offset, size int64) (line, error) {
	u, err := url.Parse(address)
	if err != nil {
		return line{}, err
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return line{}, err
	}
	var head strings.Builder
	fmt.Fprintf(&head, "PATCH %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nUpload-Offset: %d\r\n",
		u.RequestURI(), u.Host, octets, size-offset, offset)
	for k, v := range sv.headers() {
		fmt.Fprintf(&head, "%s: %s\r\n", k, v)
	}
	l := line{c.(*net.TCPConn)}
	if _, err := l.Write([]byte(head.String() + "\r\n")); err != nil {
		return line{}, errors.Join(err, c.Close())
	}
	return l, nil
}

// send sends n bytes that may come from anywhere in the upload.
func (l line) send(n int64) error {
	for n > 0 {
		sent, err := l.Write(noise[:min(n, int64(len(noise)))])
		if err != nil {
			return err
		}
		n -= int64(sent)
	}
	return nil
}

// delivered waits until the other side's kernel has confirmed all that was sent (tcp(7), SIOCOUTQ).
func (l line) delivered(ctx context.Context) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		var waiting int
		var failed error
		if err := raw.Control(func(fd uintptr) { waiting, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
			return false, err
		}
		return waiting == 0, failed
	})
}

// cut resets the connection, as a network does that forgets it.
func (l line) cut() error {
	return errors.Join(l.SetLinger(0), l.Close())
}

// answer reads the server's answer.
func (l line) answer() (status int, err error) {
	res, err := http.ReadResponse(bufio.NewReader(l), nil)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// sendOver sends an upload over a link that is cut each time after it has carried every bytes, and resumes with HEAD
// as a client does: at once, or calmly, when the server has saved what it had. It returns how often the link was cut
// and how many bytes the server received a second time.
func (sv *server) sendOver(ctx context.Context, size, every int64, calmly bool) (cuts int, resent int64, err error) {
	address, err := sv.create(ctx, size, 0)
	if err != nil {
		return 0, 0, err
	}
	var offset, sent int64
	for size-offset > every {
		l, err := sv.open(ctx, address, offset, size)
		if err != nil {
			return cuts, 0, err
		}
		if err := errors.Join(l.send(every), l.delivered(ctx), l.cut()); err != nil {
			return cuts, 0, err
		}
		cuts++
		sent += every
		if calmly {
			if err := sv.saved(ctx, address, offset+every, cuts); err != nil {
				return cuts, 0, err
			}
		}
		before := offset
		if offset, err = sv.head(ctx, address); err != nil {
			return cuts, 0, err
		}
		if calmly && offset <= before {
			return cuts, 0, fmt.Errorf("offset is %d after %d bytes were received at %d", offset, every, before)
		}
	}
	sent += size - offset
	return cuts, sent - size, sv.patch(ctx, address, offset, size-offset)
}

// saved waits until the server has done with the n-th PATCH, which it received up to offset. HEAD must not be asked:
// it stops a PATCH.
func (sv *server) saved(ctx context.Context, address string, offset int64, n int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		if sv.peer != tramo {
			return strings.Count(sv.process.Output(), "msg=ResponseOutgoing method=PATCH") >= n, nil
		}
		got, err := sv.recorded(ctx, address)
		return got >= offset, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // what is not saved will be sent again, and is counted
	}
	return err
}

// recorded asks Tramo how much of an upload is durable without touching its lease.
func (sv *server) recorded(ctx context.Context, address string) (int64, error) {
	var state struct{ Offset int64 }
	_, body, err := sv.send(ctx, http.MethodGet, address, nil, 0, nil, http.StatusOK)
	if err == nil {
		err = json.Unmarshal(body, &state)
	}
	return state.Offset, err
}
