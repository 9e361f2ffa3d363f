package batch_test

import (
	"testing"

	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/hooks/hookstest"
)

func TestMain(m *testing.M) { hookstest.Main(m) }

// A site has batches.
type site struct {
	*hookstest.Site
	batches *batch.Service
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := hookstest.New(t)
	return &site{s, &batch.Service{
		Config: batch.DefaultConfig(), DB: s.API, Policy: s.Admission.Policy, Queue: s.Queue, Uploads: s.Uploads,
		Metrics: s.Uploads.Metrics, Log: s.Log,
	}}
}
