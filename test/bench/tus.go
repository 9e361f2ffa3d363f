package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	mb  = 1_000_000
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30

	partSize = 8 * mib // Tramo's default, and what tusd tuned and the bare client use
	photo    = 3 * mb  // what a phone's camera makes
)

// noise is what every upload consists of, over and over. It does not compress.
var noise = func() []byte {
	b := make([]byte, partSize)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never errs
	return b
}()

// endless reads noise for ever.
type endless struct{ at int }

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, noise[e.at:])
	e.at = (e.at + n) % len(noise)
	return n, nil
}

// clients is the connections of all who upload.
var clients = &http.Client{Transport: &http.Transport{
	DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
	MaxIdleConnsPerHost: 256,
	DisableCompression:  true,
}}

const octets = "application/offset+octet-stream"

// do sends a request of size bytes, expects a status, and returns the answer's header.
func (sv *server) do(ctx context.Context, method, url string, size int64, header map[string]string, want int) (http.Header, error) {
	h, _, err := sv.send(ctx, method, url, io.LimitReader(&endless{}, size), size, header, want)
	return h, err
}

// send sends a request with the headers that each needs and header, expects a status, and returns the answer.
func (sv *server) send(ctx context.Context, method, url string, body io.Reader, size int64, header map[string]string, want int) (http.Header, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return nil, nil, err
	}
	if size > 0 {
		r.Body, r.ContentLength = io.NopCloser(body), size
		r.Header.Set("Content-Type", octets)
	}
	for _, h := range []map[string]string{sv.headers(), header} {
		for k, v := range h {
			r.Header.Set(k, v)
		}
	}
	return answered(r, want)
}

// answered sends a request, expects a status, and returns the answer.
func answered(r *http.Request, want int) (http.Header, []byte, error) {
	res, err := clients.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != want {
		err = &refusal{method: r.Method, status: res.StatusCode, body: body[:min(len(body), 1000)]}
	}
	return res.Header, body, err
}

// A refusal is another status than the one expected.
type refusal struct {
	method string
	status int
	body   []byte
}

func (r *refusal) Error() string { return fmt.Sprintf("%s: %d %s", r.method, r.status, r.body) }

// headers are what each request needs.
func (sv *server) headers() map[string]string {
	h := map[string]string{"Tus-Resumable": "1.0.0"}
	if sv.token != "" {
		h["Authorization"] = "Bearer " + sv.token
	}
	return h
}

// create begins an upload of size bytes, brings the first of them along, and returns its address.
func (sv *server) create(ctx context.Context, size, along int64) (string, error) {
	h, err := sv.do(ctx, http.MethodPost, sv.url, along, map[string]string{
		"Upload-Length": strconv.FormatInt(size, 10),
		"Upload-Metadata": "filename " + base64.StdEncoding.EncodeToString([]byte("obra.jpg")) +
			",filetype " + base64.StdEncoding.EncodeToString([]byte("image/jpeg")),
	}, http.StatusCreated)
	return h.Get("Location"), err
}

// patch sends size bytes at offset.
func (sv *server) patch(ctx context.Context, url string, offset, size int64) error {
	_, err := sv.do(ctx, http.MethodPatch, url, size, map[string]string{"Upload-Offset": strconv.FormatInt(offset, 10)}, http.StatusNoContent)
	return err
}

// head asks for the offset, again while another request has the upload, as tus clients do.
func (sv *server) head(ctx context.Context, url string) (offset int64, err error) {
	err = poll(ctx, func() (bool, error) {
		h, err := sv.do(ctx, http.MethodHead, url, 0, nil, http.StatusOK)
		var r *refusal
		if errors.As(err, &r) && r.status == http.StatusLocked {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		offset, err = strconv.ParseInt(h.Get("Upload-Offset"), 10, 64)
		return true, err
	})
	return offset, err
}

// upload sends size bytes as most clients do: a creation, then all in one PATCH.
func (sv *server) upload(ctx context.Context, size int64) error {
	if sv.bare != nil {
		return sv.bare.upload(ctx, size)
	}
	url, err := sv.create(ctx, size, 0)
	if err != nil {
		return err
	}
	return sv.patch(ctx, url, 0, size)
}

// poll asks every few milliseconds until f says that it is so.
func poll(ctx context.Context, f func() (bool, error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := f(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
