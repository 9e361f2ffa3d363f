package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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
	err := b.rounds(ctx, []peer{tramo}, b.S3.Endpoint(), func(sv *server) error {
		took, err := sv.manifest(ctx, kickoff)
		if err != nil {
			return err
		}
		one.add(sv.peer, took.Seconds()*1000)
		start := time.Now()
		err = together(ctx, atOnce, kickoff, func(ctx context.Context) error {
			_, err := sv.create(ctx, photo, 0)
			return err
		})
		each.add(sv.peer, time.Since(start).Seconds()*1000)
		return err
	})
	b.spread("ms for one manifest", one)
	b.spread("ms for creations one by one", each)
	b.row("ms to create 2,000 uploads with one POST /api/batches", one, "%.0f", "< 500", one.of(tramo) < 500)
	b.row("ms to create 2,000 uploads with tus, 16 at once", each, "%.0f", "", true)
	b.row("times as long with tus as with one POST", each.by(one), "%.0fx", "", true)
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
	start := time.Now()
	_, answer, err := sv.send(ctx, http.MethodPost, strings.TrimSuffix(sv.url, "/uploads")+"/batches", bytes.NewReader(body), int64(len(body)),
		map[string]string{"Content-Type": "application/json", "Idempotency-Key": fmt.Sprint(now)}, http.StatusCreated)
	took := time.Since(start)
	if made := bytes.Count(answer, []byte(`"url"`)); err == nil && made != n {
		err = fmt.Errorf("%d of %d uploads were created", made, n)
	}
	return took, err
}
