package dev

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// console prints whole lines, so that the output of several programs does not mix.
type console struct {
	mu sync.Mutex
	w  io.Writer
}

func (c *console) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.w, format+"\n", args...)
}

// step prints that name is starting, and how long it took.
func (c *console) step(name string, start func() error) error {
	c.printf("starting %s…", name)
	began := time.Now()
	if err := start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	c.printf("  %s ready in %.1f s", name, time.Since(began).Seconds())
	return nil
}

// prefixed returns a writer that prints each line after name.
func (c *console) prefixed(name string) io.Writer { return &lines{console: c, prefix: name} }

type lines struct {
	console *console
	prefix  string
	rest    []byte // the unfinished last line
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte{'\n'})
		if !whole {
			return len(p), nil
		}
		l.console.printf("%s | %s", l.prefix, line)
		l.rest = rest
	}
}

// welcome prints where everything is and how to try it.
func (s *devStack) welcome(token string, took time.Duration) {
	page, bearer := s.cfg.page()+"/", "$TOKEN"
	if token != "" {
		page, bearer = page+"#token="+token, token
	}
	text := []string{"", fmt.Sprintf("Tramo is ready after %.1f s.", took.Seconds()), "", "  page     " + page}
	if token != "" {
		text = append(text, "  token    "+token)
	}
	if s.ownS3 {
		text = append(text, "  objects  "+filepath.Join(s.cfg.Dir, "objects", s.cfg.S3Bucket))
	}
	text = append(text, "", "Send a photo, then look at it:", "",
		"  TOKEN="+bearer,
		`  curl -i -H "Authorization: Bearer $TOKEN" -H "Tus-Resumable: 1.0.0" \`,
		`    -H "Upload-Length: $(stat -c %s photo.jpg)" -H "Upload-Metadata: filename $(printf photo.jpg | base64)" \`,
		`    -H "Content-Type: application/offset+octet-stream" --data-binary @photo.jpg `+s.cfg.page()+"/api/uploads",
		`  curl -H "Authorization: Bearer $TOKEN" `+s.cfg.page()+"/api/uploads",
		"", "Ctrl-C stops everything.", "")
	s.out.printf("%s", strings.Join(text, "\n"))
}
