package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/getkin/kin-openapi/openapi3"
)

// A sequence is the content of an answer that is many messages. Each is held against its schema as it passes: OpenAPI
// 3.1 has no word for a sequence, and describes one message.
type sequence struct {
	io.ReadCloser
	schema *openapi3.Schema
	read   func(line []byte) (message any, err error) // nil for a line that ends none
	broken func(error) error
	line   []byte // that has not ended
}

// watch lets the messages of an answer be looked at, if it is a sequence.
func (c *contract) watch(op *openapi3.Operation, res *http.Response) {
	mediaType, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	var read func([]byte) (any, error)
	switch mediaType {
	case "text/event-stream":
		read = make(sse).read
	case "application/x-ndjson":
		read = func(line []byte) (v any, err error) { return v, json.Unmarshal(line, &v) }
	default:
		return
	}
	schema := op.Responses.Status(res.StatusCode).Value.Content.Get(mediaType).Schema.Value
	res.Body = &sequence{ReadCloser: res.Body, schema: schema, read: read, broken: c.note}
}

// Read implements [io.Reader]. A message that is not as described ends it.
func (s *sequence) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.line = append(s.line, p[:n]...)
	for {
		line, rest, ended := bytes.Cut(s.line, []byte("\n"))
		if !ended {
			return n, err
		}
		s.line = rest
		if wrong := s.check(line); wrong != nil {
			return 0, s.broken(fmt.Errorf("not as described: a message that ends with %q: %w", line, wrong))
		}
	}
}

func (s *sequence) check(line []byte) error {
	message, err := s.read(line)
	if err != nil || message == nil {
		return err
	}
	return s.schema.VisitJSON(message, openapi3.EnableJSONSchema2020())
}

// An sse is a server-sent event (WHATWG HTML, section 9.2) while its lines come.
type sse map[string]any

func (e sse) read(line []byte) (any, error) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "event", "id":
		e[string(name)] = string(value)
	case "data":
		var data any
		if err := json.Unmarshal(value, &data); err != nil {
			return nil, err
		}
		e["data"] = data
	case "retry": // and a comment, which has no name
	case "":
		if len(line) == 0 {
			return e.end(), nil
		}
	default:
		return nil, errors.New("there is no such field")
	}
	return nil, nil
}

// end returns the event, or nil if it has no data: then there is none, and only its id counts.
func (e sse) end() any {
	defer clear(e)
	if e["data"] == nil {
		return nil
	}
	return map[string]any{"event": e["event"], "id": e["id"], "data": e["data"]}
}
