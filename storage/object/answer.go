package object

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/sourcegraph/conc/panics"
)

// recovered makes a panic of f its error: in a goroutine that works for one request it would end all others with the process.
func recovered(f func() error) func() error {
	return func() (err error) {
		if p := panics.Try(func() { err = f() }); p != nil {
			err = p.AsError()
		}
		return err
	}
}

// ErrUnsupported says that the store does not do what Tramo asks of it: it says so, or its answer lacks what S3's has. The
// error names the operation of the S3 API. Trying again does not help.
var ErrUnsupported = errors.New("not supported by this S3 store")

// lacking is the error for an answer that says "done" and does not say what S3 says then. To believe it could lose bytes.
func lacking(operation, field string) error {
	return fmt.Errorf("%w: the answer to %s has no %s", ErrUnsupported, operation, field)
}

// told returns a field of an answer that is not empty.
func told[T comparable](operation, field string, value *T) (T, error) {
	var nothing T
	if value == nil || *value == nothing {
		return nothing, lacking(operation, field)
	}
	return *value, nil
}

// saysUnsupported reports whether a store said that it does not have an operation.
func saysUnsupported(err error) bool {
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "NotImplemented" {
		return true
	}
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.HTTPStatusCode() {
	case http.StatusNotImplemented, http.StatusMethodNotAllowed,
		http.StatusLengthRequired: // gofakes3, which takes UploadPartCopy for an UploadPart without a body
		return true
	}
	return false
}
