package object_test

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

// probed runs a probe of a store with faults until it has answered, and returns what it logged. A probe of a store that lacks
// something goes on until the test ends.
func probed(t *testing.T, endpoint, name string) (probe *object.Probe, logged string) {
	t.Helper()
	line := make(chan string, 16)
	probe = &object.Probe{Bucket: openBucket(t, endpoint, name), Log: slog.New(slog.NewTextHandler(lineWriter(line), nil))}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- probe.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		stack.Must(t, stack.Receive(t, "end of the probe", ended))
	})
	logged = stack.Receive(t, "log line of the probe", line)
	stack.Until(t, "the probe to be done", func() bool {
		err := probe.Ready(t.Context())
		return err == nil || !strings.Contains(err.Error(), "being tried")
	})
	return probe, logged
}

type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

// A store that is as S3 is lacks nothing; the probe leaves nothing behind, costs a known number of requests, and is invisible
// to the inventory.
func TestProbe(t *testing.T) {
	t.Parallel()
	client, name, direct := newBucket(t)
	p := newProxy(t)
	probe, logged := probed(t, p.Endpoint(), name)
	stack.Must(t, probe.Ready(t.Context()))
	stack.Must(t, probe.Complete(t.Context()))
	if !strings.Contains(logged, "has all that Tramo needs") {
		t.Errorf("logged %s", logged)
	}
	stack.Until(t, "the scratch objects to be gone", func() bool {
		left, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &name})
		stack.Must(t, err)
		return len(left.Contents) == 0
	})
	for u, err := range direct.Multiparts(t.Context()) {
		stack.Must(t, err)
		t.Errorf("left is %+v", u)
	}
	scratch := "tenants/scratch/somebody/object"
	stack.Must(t, direct.Put(t.Context(), scratch, "text/plain", bytes.NewReader([]byte("x")), 1))
	for o, err := range direct.Objects(t.Context()) {
		stack.Must(t, err)
		t.Errorf("the inventory has %+v", o)
	}
}

// What a store lacks is named with its cost, in one log line and to /readyz. What Tramo cannot do without makes it unready.
func TestProbeOfStoresThatLackSomething(t *testing.T) {
	t.Parallel()
	absent, silent := stack.NotImplemented, stack.EmptyAnswer
	for name, c := range map[string]struct {
		faults map[string]stack.Fault
		want   []string
		needed bool
	}{
		"no copies of parts":    {map[string]stack.Fault{copyPart: absent}, []string{"UploadPartCopy (S3 answers 501 NotImplemented): bytes of concatenated uploads go through the server"}, false},
		"empty copies of parts": {map[string]stack.Fault{copyPart: silent}, []string{"UploadPartCopy (", "has no CopyPartResult"}, false},
		"no copies":             {map[string]stack.Fault{"CopyObject": silent}, []string{"CopyObject (", "go through the worker"}, false},
		"no tags":               {map[string]stack.Fault{"PutObjectTagging": absent}, []string{"object tagging (S3 answers 501 NotImplemented): objects in quarantine have no tag"}, false},
		"no batches":            {map[string]stack.Fault{"DeleteObjects": silent}, []string{"DeleteObjects (", "what was deleted is there"}, false},
		"presentation":          {map[string]stack.Fault{getObject: {Change: stack.IgnorePresentation}}, []string{"response-content-type", "downloads do not have their name"}, false},
		"lists without dates":   {map[string]stack.Fault{listObjects: {Change: stack.Without("LastModified")}}, []string{"ListObjectsV2 (", "no inventory and no erasure"}, false}, //nolint:bodyclose // it is changed, not taken
		"empty lists are 404":   {map[string]stack.Fault{listObjects: {Change: stack.NoEmptyList}}, nil, false},
		"no ETag":               {map[string]stack.Fault{uploadPart: {Change: stack.NoETag}}, []string{"multipart upload (", "the answer to UploadPart has no ETag"}, true},
		"no multipart":          {map[string]stack.Fault{createUpload: absent}, []string{"multipart upload (", "UploadPartCopy (", "AbortMultipartUpload ("}, true},
		"nothing":               {map[string]stack.Fault{putObject: silent}, []string{"PutObject (", "no upload can be stored"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, bucket, _ := newBucket(t)
			p := newProxy(t)
			p.chooses(func(kind string, _ int) stack.Fault { return c.faults[kind] })
			probe, logged := probed(t, p.Endpoint(), bucket)
			told := "the store lacks nothing"
			if err := probe.Complete(t.Context()); err != nil {
				told = err.Error()
			}
			for _, want := range c.want {
				if !strings.Contains(told, want) || !strings.Contains(logged, want) {
					t.Errorf("it lacks %q, says %q, logs %q", want, told, logged)
				}
			}
			if len(c.want) == 0 && told != "the store lacks nothing" {
				t.Errorf("it says %q", told)
			}
			if err := probe.Ready(t.Context()); (err != nil) != c.needed {
				t.Errorf("ready: %v", err)
			}
		})
	}
}

// A store that does not answer when a process starts is tried until it does, and nothing is called lacking meanwhile.
func TestProbeWaitsForTheStore(t *testing.T) {
	t.Parallel()
	_, name, _ := newBucket(t)
	p := newProxy(t)
	away := true
	asked := make(chan struct{}, 1000)
	p.chooses(func(string, int) stack.Fault {
		asked <- struct{}{}
		if away {
			away = len(asked) < 10
			return stack.Fault{Cut: true}
		}
		return stack.Fault{}
	})
	_, logged := probed(t, p.Endpoint(), name)
	if !strings.Contains(logged, "has all that Tramo needs") {
		t.Errorf("logged %s", logged)
	}
}

// What keeps the bucket from being used is one sentence that says what to do, the same each time it is asked.
func TestPing(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	_, name, _ := newBucket(t)
	for want, what := range map[string]stack.Fault{
		"bucket " + name + ": it does not exist: create it, or set TRAMO_S3_BUCKET to one that exists":                                  {Status: http.StatusNotFound, Code: "NoSuchBucket"},
		"bucket " + name + ": credentials refused: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may use the bucket": {Status: http.StatusForbidden, Code: "AccessDenied"},
		"bucket " + name + ": it is in another region: set AWS_REGION":                                                                  {Status: http.StatusMovedPermanently, Code: "PermanentRedirect"},
	} {
		bucket := openBucket(t, p.Endpoint(), name)
		p.chooses(func(string, int) stack.Fault { return what })
		said := map[string]int{}
		for range 3 {
			if err := bucket.Ping(t.Context()); err != nil {
				said[err.Error()]++
			}
		}
		if !maps.Equal(said, map[string]int{want: 3}) {
			t.Errorf("it says %v, want %q", said, want)
		}
	}
	p.chooses(func(string, int) stack.Fault {
		return stack.Fault{Status: http.StatusServiceUnavailable, Code: "SlowDown"}
	})
	bucket := openBucket(t, p.Endpoint(), name)
	said := map[string]int{}
	for range 6 {
		if err := bucket.Ping(t.Context()); err != nil {
			said[err.Error()]++
		}
	}
	if len(said) > 2 { // and that the circuit is open
		t.Errorf("it says %v", said)
	}
}
