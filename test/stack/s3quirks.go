package stack

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strconv"
)

// How stores that speak S3's protocol differ from it, each seen in one that is in use. NoETag, NoEmptyList and
// IgnorePresentation are for [Fault.Change].
var (
	// EmptyAnswer says 200 and nothing else, whatever was asked.
	EmptyAnswer = Fault{Status: http.StatusOK}
	// NotImplemented is what S3 says of what it cannot do.
	NotImplemented = Fault{Status: http.StatusNotImplemented, Code: "NotImplemented"}
)

var etag = regexp.MustCompile("<ETag>[^<]*</ETag>")

// NoETag takes the ETag away, from header and body.
func NoETag(res *http.Response) {
	res.Header.Del("ETag")
	if res.Request.Method == http.MethodGet && res.Header.Get("Content-Type") != "application/xml" {
		return // an object
	}
	changeBody(res, func(body []byte) []byte { return etag.ReplaceAll(body, nil) })
}

// NoEmptyList answers 404 in place of a list of nothing.
func NoEmptyList(res *http.Response) {
	changeBody(res, func(body []byte) []byte {
		if bytes.Contains(body, []byte("<Key>")) {
			return body
		}
		res.StatusCode, res.Status = http.StatusNotFound, ""
		return Fault{Status: http.StatusNotFound, Code: "NoSuchUpload"}.document()
	})
}

// IgnorePresentation serves an object as it was stored, whatever response-content-type and the like asked for.
func IgnorePresentation(res *http.Response) {
	res.Header.Set("Content-Type", "application/octet-stream")
	res.Header.Del("Content-Disposition")
	res.Header.Del("Cache-Control")
}

func changeBody(res *http.Response, change func([]byte) []byte) {
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err == nil {
		body = change(body)
	}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	res.Header.Set("Content-Length", strconv.Itoa(len(body)))
}

// Without takes an element out of lists.
func Without(tag string) func(*http.Response) {
	element := regexp.MustCompile("<" + tag + ">[^<]*</" + tag + ">")
	return func(res *http.Response) {
		changeBody(res, func(body []byte) []byte { return element.ReplaceAll(body, nil) })
	}
}

// Truncated says of a list that there is more, and not where.
func Truncated(res *http.Response) {
	changeBody(res, func(body []byte) []byte {
		return bytes.ReplaceAll(body, []byte("<IsTruncated>false<"), []byte("<IsTruncated>true<"))
	})
}
