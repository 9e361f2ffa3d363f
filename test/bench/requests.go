package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A scenario is an upload of which S3 requests and bytes are counted. Counts do not depend on the machine, so the
// package's tests hold Tramo to them.
type scenario struct {
	name string
	size int64
	send func(ctx context.Context, sv *server, size int64) (resent int64, err error)
	cuts int // of the connection
	most int // requests that Tramo may need
	why  string
	time bool // measured by the clock too
}

// writtenOver is how many bytes may be written to S3 for each byte of an upload whose connection is cut.
const writtenOver = 1.2

var scenarios = []scenario{
	{name: "3 MB photo, POST + PATCH", size: photo, send: plain, most: 1, why: "1"},
	{name: "3 MB photo, POST with body", size: photo, send: withBody, most: 1, why: "1"},
	{name: "100 MB in one PATCH", size: 100 * mb, send: plain, most: partsOf(100*mb) + 2, why: "parts + 2", time: true},
	{name: "200 MB in one PATCH", size: 200 * mb, send: plain, most: partsOf(200*mb) + 2, why: "parts + 2"},
	{
		name: "20 MB in 10 PATCHes", size: 20 * mb, send: pieces(2 * mb),
		most: partsOf(20*mb) + 2 + tails(20*mb, 2*mb), why: "parts + 2 + tails", time: true,
	},
	{
		name: "200 MiB as 40 PATCHes of 5 MiB", size: 200 * mib, send: pieces(5 * mib),
		most: partsOf(200*mib) + 2 + tails(200*mib, 5*mib), why: "parts + 2 + tails",
	},
	{name: "3 MB photo cut every 0.9 MB", size: photo, send: overCuts(900_000), cuts: 3, most: 2 + 3, why: "2 + cuts"},
	{name: "3 MB photo cut 5 times", size: photo, send: overCuts(500_000), cuts: 5, most: 2 + 5, why: "2 + cuts", time: true},
	{
		name: "20 MB cut every 2 MB", size: 20 * mb, send: overCuts(2 * mb), cuts: 9,
		most: partsOf(20*mb) + 2 + 9, why: "parts + 2 + cuts",
	},
}

func plain(ctx context.Context, sv *server, size int64) (int64, error) {
	return 0, sv.upload(ctx, size)
}

func withBody(ctx context.Context, sv *server, size int64) (int64, error) {
	_, err := sv.create(ctx, size, size)
	return 0, err
}

// pieces sends PATCHes of n bytes, with a HEAD before each but the first, as a client does that was restarted.
func pieces(n int64) func(context.Context, *server, int64) (int64, error) {
	return func(ctx context.Context, sv *server, size int64) (int64, error) {
		address, err := sv.create(ctx, size, 0)
		if err != nil {
			return 0, err
		}
		for offset := int64(0); offset < size; offset += n {
			if offset > 0 {
				if told, err := sv.head(ctx, address); err != nil || told != offset {
					return 0, fmt.Errorf("HEAD tells %d, not %d: %w", told, offset, err)
				}
			}
			if err := sv.patch(ctx, address, offset, min(n, size-offset)); err != nil {
				return 0, err
			}
		}
		return 0, nil
	}
}

// tails is how many of an upload's PATCHes of n bytes end inside a part and not at the upload's end.
func tails(size, n int64) (count int) {
	for end := n; end < size; end += n {
		if end%partSize != 0 {
			count++
		}
	}
	return count
}

func overCuts(every int64) func(context.Context, *server, int64) (int64, error) {
	return func(ctx context.Context, sv *server, size int64) (int64, error) {
		_, resent, err := sv.sendOver(ctx, size, every, true)
		return resent, err
	}
}

// A tally is what an upload cost.
type tally struct {
	kinds   map[string]int
	total   int     // requests
	written float64 // bytes to S3 for each byte of the upload
	resent  int64   // bytes that the server received twice
}

func (t tally) String() string {
	var b strings.Builder
	for i, kind := range slices.Sorted(maps.Keys(t.kinds)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", t.kinds[kind], kind)
	}
	return b.String()
}

// count runs a scenario against a fresh server, which it stops before it counts: what S3 is asked after the client has
// its answer counts too.
func (s *stand) count(ctx context.Context, p peer, sc scenario) (tally, error) {
	sv, err := s.serve(ctx, p, s.proxy.Endpoint())
	if err != nil {
		return tally{}, err
	}
	s.proxy.Reset()
	resent, err := sc.send(ctx, sv, sc.size)
	if stopped := sv.stop(); err == nil {
		err = stopped
	}
	if err != nil {
		return tally{}, fmt.Errorf("%s, %s: %w", p, sc.name, err)
	}
	t := s.tally(sc.size)
	t.resent = resent
	return t, s.wipe()
}

// tally reads the proxy. What concerns the bucket, such as a look whether it is there, is no upload's.
func (s *stand) tally(size int64) tally {
	t := tally{kinds: s.proxy.Counts()}
	for _, kind := range []string{"HeadBucket", "ListObjectsV2", "ListObjects", "ListMultipartUploads"} {
		delete(t.kinds, kind)
	}
	for _, n := range t.kinds {
		t.total += n
	}
	b := s.proxy.Bytes()
	t.written = float64(b["PutObject"]+b["UploadPart"]) / float64(size)
	return t
}

// requests counts what each scenario asks of S3.
func requests(ctx context.Context, b *bench) error {
	for _, sc := range scenarios {
		total, written, resent := figures{}, figures{}, figures{}
		for _, p := range []peer{tramo, stock, tuned} {
			t, err := b.count(ctx, p, sc)
			if err != nil {
				return err
			}
			b.note("%s, %s: %s", sc.name, p, t)
			total.add(p, float64(t.total))
			written.add(p, t.written)
			resent.add(p, float64(t.resent))
		}
		if sc.cuts == 0 {
			n, err := b.countBare(ctx, sc.size)
			if err != nil {
				return err
			}
			total.add(bare, n)
		}
		b.row("S3 requests, "+sc.name, total, "%.0f", fmt.Sprintf("%s = %d", sc.why, sc.most), total.of(tramo) <= float64(sc.most))
		if sc.cuts > 0 {
			b.row("bytes written to S3 for each acknowledged one, "+sc.name, written, "%.2f", fmt.Sprintf("≤ %.1f", writtenOver), written.of(tramo) <= writtenOver)
			b.row("received bytes sent again, "+sc.name, resent, "%.0f", "0", resent.of(tramo) == 0)
		}
	}
	return hasty(ctx, b)
}

func (s *stand) countBare(ctx context.Context, size int64) (float64, error) {
	client := &server{bare: s.bare(s.proxy.Endpoint())}
	if err := client.prepare(ctx, 1); err != nil {
		return 0, err
	}
	s.proxy.Reset()
	if err := client.upload(ctx, size); err != nil {
		return 0, err
	}
	return float64(s.tally(size).total), s.wipe()
}

// hasty cuts a link every 2 MB too, but the client asks for the offset at once, while the server may still be reading.
func hasty(ctx context.Context, b *bench) error {
	resent := figures{}
	err := b.rounds(ctx, []peer{tramo, stock, tuned}, b.S3.Endpoint(), func(sv *server) error {
		_, n, err := sv.sendOver(ctx, 20*mb, 2*mb, false)
		resent.add(sv.peer, float64(n)/kib)
		return err
	})
	b.row("received KiB sent again, 20 MB cut every 2 MB, HEAD at once", resent, "%.0f", "0", resent.of(tramo) == 0)
	return err
}
