package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// kickoff is how many photos a crew takes when a project begins.
const kickoff = 2000

// batches measures how long it takes until a crew may send the first byte of each of its photos: with one manifest, and
// with a creation for each.
func batches(ctx context.Context, b *bench) error {
	const atOnce = 16
	one, each := figures{}, figures{}
	err := b.rounds(ctx, []peer{tramo}, b.S3.Endpoint(), func(t target) error {
		took, err := t.server.manifest(ctx, kickoff)
		if err != nil {
			return err
		}
		one.add(t.peer, took.Seconds()*1000)
		start := time.Now()
		err = together(ctx, atOnce, kickoff, func(ctx context.Context) error {
			_, err := t.server.create(ctx, photo, 0)
			return err
		})
		each.add(t.peer, time.Since(start).Seconds()*1000)
		return err
	})
	b.spread("ms for one manifest", one)
	b.spread("ms for creations one by one", each)
	b.row("ms to create 2,000 uploads with one POST /api/batches", one, "%.0f", "< 500", one.of(tramo) < 500)
	b.row("ms to create 2,000 uploads with tus, 16 at once", each, "%.0f", "", true)
	ratio := figures{}
	for i := range one[tramo] {
		ratio.add(tramo, each[tramo][i]/one[tramo][i])
	}
	b.row("times as long with tus as with one POST", ratio, "%.0fx", "", true)
	return err
}

// manifest creates n uploads by one request and returns how long the answer took, to its end.
func (sv *server) manifest(ctx context.Context, n int) (time.Duration, error) {
	type entry struct {
		ClientID string `json:"client_id"`
		Filename string `json:"filename"`
		Size     int64  `json:"size"`
		Type     string `json:"type"`
	}
	now := time.Now().UnixNano()
	entries := make([]entry, n)
	for i := range entries {
		entries[i] = entry{fmt.Sprintf("photo-%d-%d", now, i), fmt.Sprintf("IMG_%04d.jpg", i), photo, "image/jpeg"}
	}
	body, err := json.Marshal(map[string]any{"name": "kickoff", "uploads": entries})
	if err != nil {
		return 0, err
	}
	url := strings.TrimSuffix(sv.url, "/uploads") + "/batches"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for k, v := range sv.headers() {
		r.Header.Set(k, v)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", fmt.Sprint(now))
	start := time.Now()
	res, err := clients.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	took := time.Since(start)
	if err == nil && (res.StatusCode != http.StatusCreated || bytes.Count(answer, []byte(`"url"`)) != n) {
		err = &refusal{method: http.MethodPost, status: res.StatusCode, body: answer[:min(len(answer), 1000)]}
	}
	return took, err
}
