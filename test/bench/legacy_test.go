package main

import (
	"context"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// Both rivals take a photo over a link that holds, the legacy API with its thumbnails. Over one that is cut in the middle
// of each photo only Tramo does.
func TestRivals(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*enough)
	defer cancel()
	stack.Must(t, installLegacy(ctx))
	picture := stack.Photo(stack.PhotoConfig{Width: 800, Height: 600, Seed: 3})
	cut := link{"cut", int64(len(picture)) * 2 / 3}
	for _, p := range []peer{tramo, legacy} {
		sv, err := shared.serve(ctx, p, shared.proxy.Endpoint())
		stack.Must(t, err)
		shared.proxy.Reset()
		for _, l := range []link{{"holds", 0}, cut} {
			through, end, err := sv.over(l)
			stack.Must(t, err)
			d, err := deliverAll(ctx, through, 2, 3, [][]byte{picture}, t.Output())
			stack.Must(t, err)
			end()
			want := 100.0
			if p == legacy && l == cut {
				want = 0
			}
			stack.Want(t, d.arrived, want, "per cent of %s's photos that arrive over a link that is %s", p, l.name)
			if n := shared.proxy.Counts()["PutObject"]; p == legacy && n != 3*4 {
				t.Errorf("%d objects of three photos with three thumbnails each", n)
			}
		}
		clients.CloseIdleConnections()
		stack.Must(t, sv.stop())
	}
	stack.Must(t, shared.wipe())
}
