package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/tramo/tramo/test/stack"
)

// A profiled server leaves a CPU and a wall profile in the run's folder, which have Tramo's functions.
func TestProfiles(t *testing.T) {
	ctx := stack.Context(t)
	shared.profiles = &profiles{dir: t.TempDir(), merged: map[string]*profile.Profile{}}
	defer func() { shared.profiles = nil }()
	sv, err := shared.serve(ctx, tramo, shared.S3.Endpoint())
	stack.Must(t, err)
	stack.Must(t, sv.upload(ctx, photo))
	stack.Must(t, sv.stop())
	stack.Must(t, shared.profiles.save("upload"))
	for _, kind := range []string{"cpu", "wall"} {
		content, err := os.ReadFile(filepath.Join(shared.profiles.dir, "upload-server-"+kind+".pprof"))
		stack.Must(t, err)
		got, err := profile.ParseData(content)
		stack.Must(t, err)
		ours := slices.ContainsFunc(got.Function, func(f *profile.Function) bool { return strings.HasPrefix(f.Name, "github.com/tramo/tramo/") })
		if kind == "wall" && !ours { // a CPU profile of so short a time may have no sample
			t.Errorf("the %s profile has %d functions, none of Tramo's", kind, len(got.Function))
		}
	}
	stack.Must(t, shared.profiles.save("nothing"))
	if left, err := filepath.Glob(filepath.Join(shared.profiles.dir, "nothing*")); err != nil || len(left) > 0 {
		t.Errorf("a case without processes has %v %v", left, err)
	}
}
