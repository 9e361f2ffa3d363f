package server_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tramo/tramo/test/stack"
)

// sum makes an Upload-Checksum of data.
func sum(algorithm string, data []byte) string {
	var h hash.Hash
	switch algorithm {
	case "sha1":
		h = sha1.New()
	case "sha256":
		h = sha256.New()
	case "crc32":
		h = crc32.NewIEEE()
	}
	h.Write(data)
	return algorithm + " " + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// wantWhole checks that the upload is finished with exactly these bytes.
func wantWhole(t *testing.T, u user, url string, data []byte) {
	t.Helper()
	want := sha256.Sum256(data)
	if got := u.upload(url); got.Status != "uploaded" || got.SHA256 != hex.EncodeToString(want[:]) {
		t.Errorf("%+v, want uploaded with %x", got, want)
	}
}

// The example of tus 1.0.0, Checksum.
func TestChecksumOfTheSpecification(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	url := u.create(11)
	u.patch(url, 0, strings.NewReader("hello world"), "Upload-Checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=").want(t, 204, "")
	wantWhole(t, u, url, []byte("hello world"))
}

// A body that is not what its checksum says moves no offset and leaves nothing behind: the right bytes follow,
// and the whole has the right SHA-256.
func TestChecksums(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, algorithm := range []string{"sha1", "sha256", "crc32"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			u := s.user
			u.t = t
			data, wrong := noise(3000), noise(1000)
			url := u.create(len(data))
			u.patch(url, 0, reader(wrong), "Upload-Checksum", sum(algorithm, data[:1000])).want(t, 460, "body-mismatch")
			u.patch(url, 0, reader(data[:1000]), "Upload-Checksum", sum(algorithm, data[:1000])).want(t, 204, "")
			u.patch(url, 1000, reader(wrong), "Upload-Checksum", sum(algorithm, data[1000:2000])).want(t, 460, "body-mismatch")
			u.wantOffset(url, 1000)
			u.patch(url, 1000, reader(data[1000:2000])).want(t, 204, "")
			last := u.patch(url, 2000, reader(noise(1000)), "Upload-Checksum", sum(algorithm, data[2000:]))
			last.want(t, 460, "body-mismatch") // although it would complete the upload
			last.wantHeader(t, "Tus-Resumable", "1.0.0")
			u.patch(url, 2000, reader(data[2000:]), "Upload-Checksum", sum(algorithm, data[2000:])).want(t, 204, "")
			wantWhole(t, u, url, data)
		})
	}
}

func TestChecksumOfCreation(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	data := noise(1000)
	post := func(body []byte) answer {
		return u.do("POST", u.uploads, reader(body), "Content-Type", octets, "Upload-Length", "1000",
			"Upload-Checksum", sum("sha1", data), "Upload-Metadata", metadata("client_id", "one"))
	}
	post(noise(1000)).want(t, 460, "body-mismatch")
	again := post(data) // it finds the upload of the first request, and its content is not read
	again.want(t, 201, "")
	again.wantHeader(t, "Upload-Offset", "0")
	u.patch(again.header.Get("Location"), 0, reader(data)).want(t, 204, "")
	wantWhole(t, u, again.header.Get("Location"), data)

	whole := u.do("POST", u.uploads, reader(data), "Content-Type", octets, "Upload-Length", "1000", "Upload-Checksum", sum("crc32", data)).want(t, 201, "")
	wantWhole(t, u, whole.header.Get("Location"), data)
}

func TestChecksumsThatAreNone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	url := u.create(5)
	for name, header := range map[string]string{
		"unknown algorithm": "md5 XUFAKrxLKna5cZ2REBfFkg==",
		"uppercase":         "SHA1 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
		"no sum":            "sha1",
		"not Base64":        "sha1 ???",
	} {
		t.Run(name, func(t *testing.T) {
			u.patch(url, 0, strings.NewReader("hello"), "Upload-Checksum", header).want(t, 400, "upload-checksum")
			u.wantOffset(url, 0)
		})
	}
	for name, header := range map[string]string{
		"too short":   "sha1 qvTGHQ==",
		"too long":    sum("sha1", []byte("hello"))[:len("sha1 ")] + sum("sha256", []byte("hello"))[len("sha256 "):],
		"hexadecimal": "crc32 3610a686",
	} {
		t.Run(name, func(t *testing.T) { // no body matches it
			u.patch(url, 0, strings.NewReader("hello"), "Upload-Checksum", header).want(t, 460, "body-mismatch")
			u.wantOffset(url, 0)
			s.trailing(t, url, []byte("hello"), header).want(t, 460, "body-mismatch")
			u.wantOffset(url, 0)
		})
	}
	r := u.request("PATCH", url, strings.NewReader("hello"), "Upload-Offset", "0", "Content-Type", octets)
	r.Header["Upload-Checksum"] = []string{sum("sha1", []byte("hello")), sum("sha1", []byte("hallo"))}
	u.send(r).want(t, 400, "upload-checksum")
	u.wantOffset(url, 0)
}

// A client that is slow and then gone has sent nothing that was verified: no checkpoint, no part and no tail of
// it counts, however its body was framed.
func TestCutBodyWithChecksumDoesNotCount(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, length := range map[string]int64{"length": 4 * part, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := s.user
			u.t = t
			data := noise(4 * part)
			url := u.create(len(data))
			body, client := io.Pipe()
			r := u.request("PATCH", url, body, "Upload-Offset", "0", "Content-Type", octets, "Upload-Checksum", sum("sha1", data))
			r.ContentLength = length
			failed := make(chan struct{})
			go func() {
				res, err := http.DefaultClient.Do(r) //nolint:bodyclose // there is no answer
				if err == nil {
					t.Errorf("a cut request was answered with %s", res.Status)
				}
				close(failed)
			}()
			for at := 0; at < 3*part+mib; at += mib {
				_, err := client.Write(data[at : at+mib])
				stack.Must(t, err)
			}
			stack.Until(t, "three parts are in S3", func() bool { return s.partsInS3(t, url) == 3 })
			stack.Want(t, u.upload(url).Offset, 0, "offset while nothing is verified")
			_ = client.CloseWithError(io.ErrUnexpectedEOF) // never fails
			stack.Receive(t, "end of the cut request", failed)
			u.wantOffset(url, 0)
			u.patch(url, 0, reader(data), "Upload-Checksum", sum("sha1", data)).want(t, 204, "")
			wantWhole(t, u, url, data)
		})
	}
}

// A client whose upload another request takes over is told so, and not that its bytes were wrong.
func TestInterruptedBodyWithChecksum(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	data := noise(2 * mib)
	url := u.create(len(data))
	before := s.received(t)
	body, client := io.Pipe()
	r := u.request("PATCH", url, body, "Upload-Offset", "0", "Content-Type", octets, "Upload-Checksum", sum("sha1", data))
	answered := make(chan answer, 1)
	go func() { answered <- u.send(r) }()
	_, err := client.Write(data[:mib])
	stack.Must(t, err)
	stack.Until(t, "the server has read it", func() bool { return s.received(t) >= before+mib })
	u.wantOffset(url, 0)
	stack.Must(t, client.Close())
	stack.Receive(t, "answer to the interrupted PATCH", answered).want(t, 423, "busy")
}

// Behind a tail of an earlier request, more parts than may be on their way at once arrive before they can be
// verified.
func TestChecksumOfManyParts(t *testing.T) {
	t.Parallel()
	u := newSite(t).user
	data := noise(6*part + 12345)
	url := u.create(len(data))
	u.patch(url, 0, reader(data[:1000])).want(t, 204, "")
	wrong := bytes.Clone(data[1000:])
	wrong[len(wrong)-1]++
	u.patch(url, 1000, reader(wrong), "Upload-Checksum", sum("sha256", data[1000:])).want(t, 460, "body-mismatch")
	u.wantOffset(url, 1000)
	u.patch(url, 1000, reader(data[1000:]), "Upload-Checksum", sum("sha256", data[1000:])).want(t, 204, "")
	wantWhole(t, u, url, data)
}

// trailing sends data chunked, and a checksum once the server has read it.
func (s *site) trailing(t *testing.T, url string, data []byte, checksum string) answer {
	t.Helper()
	body, client := io.Pipe()
	r := s.user.request("PATCH", url, body, "Upload-Offset", "0", "Content-Type", octets)
	r.Trailer = http.Header{"Upload-Checksum": nil}
	before := s.received(t)
	answered := make(chan answer, 1)
	go func() { answered <- s.user.send(r) }()
	_, err := client.Write(data)
	stack.Must(t, err)
	stack.Until(t, "the server has read it", func() bool { return s.received(t) == before+float64(len(data)) })
	if checksum != "" {
		r.Trailer.Set("Upload-Checksum", checksum)
	}
	stack.Must(t, client.Close())
	return stack.Receive(t, "answer to the PATCH", answered)
}

func TestChecksumTrailer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	data := noise(2*part + 100)
	for _, size := range []int{len(data), len(data) + 1} { // one that completes the upload, one that does not
		url := u.create(size)
		s.trailing(t, url, noise(len(data)), sum("sha1", data)).want(t, 460, "body-mismatch")
		s.trailing(t, url, data, "md5 XUFAKrxLKna5cZ2REBfFkg==").want(t, 400, "upload-checksum")
		s.trailing(t, url, data, "").want(t, 400, "upload-checksum")
		u.wantOffset(url, 0)
		s.trailing(t, url, data, sum("sha256", data)).want(t, 204, "")
		if size == len(data) {
			wantWhole(t, u, url, data)
		} else {
			u.wantOffset(url, len(data))
		}
	}
}

// partsInS3 counts the parts that S3 has of an upload, whether they count or not.
func (s *site) partsInS3(t *testing.T, url string) int {
	t.Helper()
	var id, key *string
	row := s.admin.QueryRow(t.Context(), `select multipart_id, object_key from contents where upload_id = $1`, idOf(url))
	stack.Must(t, row.Scan(&id, &key))
	if id == nil {
		return 0
	}
	out, err := stack.Get(t, ground.S3).Client("").ListParts(t.Context(), &s3.ListPartsInput{
		Bucket: aws.String(stack.Get(t, ground.S3).Bucket()), Key: key, UploadId: id,
	})
	stack.Must(t, err)
	return len(out.Parts)
}

// received is how many bytes the server has read of bodies.
func (s *site) received(t *testing.T) float64 {
	t.Helper()
	return s.counter(t, "tramo_upload_received_bytes_total")
}
