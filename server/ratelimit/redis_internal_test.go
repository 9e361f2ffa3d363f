package ratelimit

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

// What calls itself Redis answers a script with something else than Redis does: the server counts alone.
func TestRedisAnswersNonsense(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	stack.Must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answerNonsense(conn)
		}
	}()
	redis, err := RedisConfig{URL: telemetry.Secret("redis://" + l.Addr().String()), Timeout: time.Minute}.Open()
	stack.Must(t, err)
	t.Cleanup(func() { redis.Close() })
	p := Limit{Name: "user", PerMinute: 60, Burst: 10}
	alone, err := newMemory(p)
	stack.Must(t, err)
	s := newShared(redis, alone, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	v, err := s.take(t.Context(), p, "ana", 1)
	if err != nil || !v.allowed {
		t.Errorf("%+v, %v", v, err)
	}
}

// answerNonsense answers commands in RESP2: to a script two words and no numbers.
func answerNonsense(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		answer := ""
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "hello":
			answer = "-ERR unknown command\r\n"
		case "evalsha", "eval":
			answer = "*2\r\n$3\r\none\r\n$3\r\ntwo\r\n"
		case "client", "ping":
			answer = "+OK\r\n"
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
}
