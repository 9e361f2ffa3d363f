package stack_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/tramo/tramo/test/stack"
)

// Each action of S3 that Tramo uses is recognized, passes as it was signed, and has its bytes counted.
func TestS3ProxyCountsByKind(t *testing.T) {
	t.Parallel()
	proxy := newS3Proxy(t, stack.Get(t, ground.S3).Endpoint())
	client, bucket, ctx := stack.Get(t, ground.S3).Client(proxy.Endpoint()), stack.Get(t, ground.S3).Bucket(), t.Context()
	key, large, prefix := "proxied/a b+ñ", "proxied/large", "proxied/"
	body := random(6 << 20)

	put(t, client, bucket, key, body[:1000])
	res, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	stack.Must(t, err)
	got, err := io.ReadAll(res.Body)
	stack.Must(t, err)
	if !bytes.Equal(got, body[:1000]) {
		t.Error("GetObject answers other bytes than were put")
	}
	_, err = client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	stack.Must(t, err)
	id, parts := upload(t, client, bucket, large, body)
	copied, err := client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
		Bucket: &bucket, Key: &large, UploadId: &id, PartNumber: aws.Int32(9), CopySource: aws.String(bucket + "/proxied/a%20b%2B%C3%B1"),
	})
	stack.Must(t, err)
	parts = append(parts[:1], types.CompletedPart{ETag: copied.CopyPartResult.ETag, PartNumber: aws.Int32(9)})
	_, err = client.ListParts(ctx, &s3.ListPartsInput{Bucket: &bucket, Key: &large, UploadId: &id})
	stack.Must(t, err)
	_, err = client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &bucket, Prefix: &prefix})
	stack.Must(t, err)
	_, err = client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &bucket, Key: &large, UploadId: &id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	stack.Must(t, err)
	id, _ = upload(t, client, bucket, large, body[:1])
	_, err = client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: &large, UploadId: &id})
	stack.Must(t, err)
	_, err = client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	stack.Must(t, err)
	_, err = client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: &large}}}})
	stack.Must(t, err)
	_, err = client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: &key})
	stack.Must(t, err)

	want := map[string]int{
		"PutObject": 1, "GetObject": 1, "HeadObject": 1, "CreateMultipartUpload": 2, "UploadPart": 3, "UploadPartCopy": 1, "ListParts": 1,
		"ListMultipartUploads": 1, "CompleteMultipartUpload": 1, "AbortMultipartUpload": 1, "ListObjectsV2": 1, "DeleteObjects": 1, "DeleteObject": 1,
	}
	stack.Want(t, proxy.Counts(), want, "requests")
	sums := proxy.Bytes()
	if sums["PutObject"] != 1000 || sums["GetObject"] != 1000 || sums["UploadPart"] != 6<<20+1 {
		t.Errorf("counted %v bytes; put and got 1000, uploaded parts of 6 MiB and 1 byte", sums)
	}
	proxy.Reset()
	if len(proxy.Counts()) != 0 || len(proxy.Bytes()) != 0 {
		t.Error("counts are left after Reset")
	}
}

// The server reads a body's beginning while the client has not yet thought of its end.
func TestS3ProxyStreams(t *testing.T) {
	t.Parallel()
	begun := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, 5)
		_, _ = io.ReadFull(r.Body, first) // what is missing is seen in begun
		begun <- string(first)
		_, _ = io.Copy(w, r.Body) // as above
	}))
	t.Cleanup(server.Close)
	proxy := newS3Proxy(t, server.URL)
	body, w := io.Pipe()
	req, err := http.NewRequestWithContext(stack.Context(t), http.MethodPut, proxy.Endpoint()+"/b/k", body)
	stack.Must(t, err)
	answered := make(chan string, 1)
	go func() {
		defer close(answered)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		rest, _ := io.ReadAll(res.Body) // what is missing is seen in answered
		answered <- string(rest)
	}()
	_, err = io.WriteString(w, "first")
	stack.Must(t, err)
	stack.Want(t, stack.Receive(t, "request", begun), "first", "what the server reads")
	_, err = io.WriteString(w, "then")
	stack.Must(t, err)
	stack.Must(t, w.Close())
	stack.Want(t, stack.Receive(t, "answer", answered), "then", "what the client reads")
}

// With a fault before, S3 never gets the request; with one after, S3 has done it. The client gets the same answer.
func TestS3ProxyFaults(t *testing.T) {
	t.Parallel()
	bucket := stack.Get(t, ground.S3).Bucket()
	for name, c := range map[string]struct {
		fault  stack.Fault
		stored bool
		code   string // "" when no answer comes
	}{
		"status before":  {stack.Fault{Status: 503, Code: "SlowDown"}, false, "SlowDown"},
		"status after":   {stack.Fault{Status: 500, After: true}, true, "InternalError"},
		"cut before":     {stack.Fault{Cut: true}, false, ""},
		"cut after":      {stack.Fault{Cut: true, After: true}, true, ""},
		"delayed status": {stack.Fault{Status: 500, Delay: time.Millisecond}, false, "InternalError"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := newS3Proxy(t, stack.Get(t, ground.S3).Endpoint())
			client := once(stack.Get(t, ground.S3).Client(proxy.Endpoint()))
			proxy.Fault(func(kind string, n int) stack.Fault {
				if kind == "PutObject" && n == 2 {
					return c.fault
				}
				return stack.Fault{}
			})
			first, key := "faults/first/"+name, "faults/"+name
			put(t, client, bucket, first, random(10))
			_, err := client.PutObject(stack.Context(t), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(random(3 << 20))})
			var api smithy.APIError
			switch {
			case err == nil:
				t.Error("PutObject succeeded")
			case errors.As(err, &api) && api.ErrorCode() != c.code:
				t.Errorf("PutObject: %v", err)
			case !errors.As(err, &api) && c.code != "":
				t.Errorf("PutObject: %v, want the answer %s", err, c.code)
			}
			_, err = client.HeadObject(stack.Context(t), &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
			if (err == nil) != c.stored {
				t.Errorf("HeadObject: %v; stored should be %v", err, c.stored)
			}
		})
	}
}

// A delayed request reaches S3 after its client has given up.
func TestS3ProxyDeliversLate(t *testing.T) {
	t.Parallel()
	arrived, released := make(chan string, 1), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // what is missing is seen in arrived
		arrived <- string(body)
		select {
		case <-released:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	proxy := newS3Proxy(t, server.URL)
	proxy.Fault(func(string, int) stack.Fault { return stack.Fault{Delay: 300 * time.Millisecond} })
	ctx, giveUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, proxy.Endpoint()+"/b/k", strings.NewReader("late"))
	stack.Must(t, err)
	answered := make(chan error, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			res.Body.Close()
		}
		answered <- err
	}()
	stack.Until(t, "the request is held back", func() bool { return proxy.InFlight() == 1 })
	giveUp()
	stack.WantErr(t, stack.Receive(t, "end of the client's patience", answered), context.Canceled)
	stack.Want(t, stack.Receive(t, "request that was held back", arrived), "late", "what S3 receives")
	stack.Want(t, proxy.InFlight(), 1, "requests on their way, with the late one")
	close(released)
}

func TestS3ProxyLatency(t *testing.T) {
	t.Parallel()
	proxy := newS3Proxy(t, stack.Get(t, ground.S3).Endpoint())
	proxy.SetLatency(60 * time.Millisecond)
	start := time.Now()
	put(t, stack.Get(t, ground.S3).Client(proxy.Endpoint()), stack.Get(t, ground.S3).Bucket(), "slow", random(10))
	if took := time.Since(start); took < 60*time.Millisecond {
		t.Errorf("a request took %s, want at least 60ms", took)
	}
	proxy.SetLatency(time.Hour)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if res, err := http.Get(proxy.Endpoint()); err == nil {
			res.Body.Close()
		}
	}()
	stack.Until(t, "request on its way", func() bool { return proxy.Counts()["ListObjects"] > 0 })
	proxy.Stop() // does not wait for the hour
	stack.Receive(t, "end of the request", ended)
}

func newS3Proxy(t *testing.T, target string) *stack.S3Proxy {
	t.Helper()
	proxy, err := stack.NewS3Proxy(target)
	stack.Must(t, err)
	t.Cleanup(proxy.Stop)
	return proxy
}

// once returns a client that does not try again.
func once(c *s3.Client) *s3.Client {
	o := c.Options()
	o.RetryMaxAttempts = 1
	return s3.New(o)
}
