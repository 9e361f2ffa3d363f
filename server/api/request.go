package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// ForTenantManagers is middleware that lets managers pass whose token covers all projects of the tenant.
func ForTenantManagers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if _, err := tenant.RequireManagerOfAll(c.Request().Context()); err != nil {
			return err
		}
		return next(c)
	}
}

// pathID returns an id in the path, or [problem.ErrNotFound] for text that is not an id.
func pathID(c echo.Context, name string) (uuid.UUID, error) {
	id, err := uuid.Parse(c.Param(name))
	if err != nil {
		return id, problem.ErrNotFound
	}
	return id, nil
}

// requireTexts refuses a query with a value that is not valid as text in Postgres.
func requireTexts(query url.Values) error {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if slices.ContainsFunc(query[name], func(v string) bool { return !isText(v) }) {
			return problem.BadRequest("%s must be UTF-8 text without NUL characters.", name)
		}
	}
	return nil
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// maxJSON is the largest JSON body, in bytes, enough for a manifest of 10,000 uploads. Middleware allows most routes less.
const maxJSON = 8 << 20

var errNoBody = problem.BadRequest("The body must be a JSON object.")

// readJSON is [decodeJSON] for texts that have no NUL character.
func readJSON(c echo.Context, v any) ([]byte, error) {
	body, err := decodeJSON(c, v)
	if err == nil && hasNUL(body) {
		err = problem.BadRequest("The body has a text with a NUL character, which is no text (\\u0000). Leave it out.")
	}
	return body, err
}

// decodeJSON decodes the request's body into v and returns the body as it was sent. Fields that v does not have are an error.
func decodeJSON(c echo.Context, v any) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, maxJSON))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, problem.ErrBodyTooLarge
	case err != nil:
		return nil, problem.BadRequest("The body of the request ended early. Send the request again.")
	case len(body) == 0:
		return nil, errNoBody
	case !utf8.Valid(body):
		return nil, problem.BadRequest("The body is not JSON in UTF-8 (RFC 8259, section 8.1).")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return nil, explainJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, problem.BadRequest("The body has more than one JSON value. Send one JSON object.")
	}
	return body, nil
}

// hasNUL reports whether a text in a JSON body, a name or a value, has the character U+0000, which Postgres stores in no text.
func hasNUL(body []byte) bool {
	if !bytes.Contains(body, []byte(`\u0000`)) { // the only way to write it (RFC 8259, section 7)
		return false
	}
	for d := json.NewDecoder(bytes.NewReader(body)); ; {
		t, err := d.Token()
		if s, ok := t.(string); err != nil || ok && strings.ContainsRune(s, 0) {
			return err == nil
		}
	}
}

// readFields is [readJSON] for a request whose fields are all optional, so that its body may be empty.
func readFields(c echo.Context, v any) error {
	if _, err := readJSON(c, v); !errors.Is(err, errNoBody) {
		return err
	}
	return nil
}

// explainJSON returns an error whose detail says what is wrong with a body.
func explainJSON(err error) error {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &kind) && kind.Field == "":
		return problem.BadRequest("The body must be a JSON object, not a %s.", kind.Value)
	case errors.As(err, &kind):
		return problem.BadRequest("%s must be %s, not a %s.", kind.Field, jsonType(kind.Type), kind.Value)
	case errors.As(err, &syntax):
		return problem.BadRequest("The body is not JSON: %s at byte %d.", syntax, syntax.Offset)
	}
	if _, name, unknown := strings.Cut(err.Error(), "unknown field "); unknown {
		return problem.BadRequest("The body has the unknown field %s.", name)
	}
	return problem.BadRequest("The body has a value that is not valid: %v.", err)
}

func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String, reflect.Array: // an id is an array of bytes
		return "a text"
	case reflect.Int64:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	}
	return "an object"
}

// read runs query in a transaction of the tenant and returns its result.
func read[T any](ctx context.Context, db *storage.DB, query func(context.Context, storage.Tx) (T, error)) (found T, err error) {
	err = db.InTenant(ctx, func(tx storage.Tx) (err error) {
		found, err = query(ctx, tx)
		return err
	})
	return found, err
}
