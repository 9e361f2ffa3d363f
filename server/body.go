package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
)

// maxJSON is the largest body of JSON that is read, in bytes: that of a manifest of 10,000 uploads.
const maxJSON = 8 << 20

// readJSON reads the request's body into v, which names all that may be in it, and returns it as it was sent.
func readJSON(c echo.Context, v any) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, maxJSON))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, problem.ErrBodyTooLarge
	case err != nil:
		return nil, problem.BadRequest("The body of the request did not arrive whole. Send it again.")
	case !utf8.Valid(body):
		return nil, problem.BadRequest("The body is not JSON in UTF-8 (RFC 8259, section 8.1).")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return nil, explainJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, problem.BadRequest("The body has something behind its JSON object.")
	}
	return body, nil
}

// explainJSON says to a person what is wrong with a body.
func explainJSON(err error) error {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &kind) && kind.Field == "":
		return problem.BadRequest("The body must be a JSON object, not a %s.", kind.Value)
	case errors.As(err, &kind):
		return problem.BadRequest("%s must be %s, not a %s.", kind.Field, jsonType(kind), kind.Value)
	case errors.As(err, &syntax):
		return problem.BadRequest("The body is not JSON: %s at byte %d.", syntax, syntax.Offset)
	}
	if _, name, unknown := strings.Cut(err.Error(), "unknown field "); unknown {
		return problem.BadRequest("The body has the unknown field %s.", name)
	}
	return problem.BadRequest("The body must be a JSON object.")
}

func jsonType(e *json.UnmarshalTypeError) string {
	switch fmt.Sprint(e.Type.Kind()) {
	case "string":
		return "a text"
	case "int64":
		return "a whole number"
	case "slice":
		return "a list"
	}
	return "an object"
}
