package tus

import (
	"errors"

	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
)

// translations are tusd's errors and what they are elsewhere.
var translations = []struct {
	tusd handler.Error
	err  error
}{
	{handler.ErrUnsupportedVersion, problem.ErrTusVersion},
	{handler.ErrMaxSizeExceeded, hooks.ErrTooLarge},
	{handler.ErrSizeExceeded, object.ErrBeyondLength},
	{handler.ErrInvalidContentType, problem.ErrContentType},
	{handler.ErrInvalidUploadLength, problem.ErrUploadLength},
	{handler.ErrUploadLengthAndUploadDeferLength, problem.ErrTwoLengths},
	{handler.ErrInvalidUploadDeferLength, problem.ErrDeferLength},
	{handler.ErrInvalidConcat, problem.ErrUploadConcat},
	{handler.ErrUploadNotFinished, hooks.ErrPartialOpen},
	{handler.ErrModifyFinal, problem.ErrFinal},
	{handler.ErrInvalidOffset, problem.ErrUploadOffset},
	{handler.ErrMismatchOffset, problem.ErrOffsetMismatch},
	{handler.ErrNotFound, storage.ErrNotFound},
	{handler.ErrFileLocked, lease.ErrHeld},
	{handler.ErrLockTimeout, lease.ErrHeld},
	{handler.ErrUploadInterrupted, object.ErrTakenOver},
	{handler.ErrNotImplemented, problem.ErrNotImplemented},
	{handler.ErrServerShutdown, object.ErrStopping},
	{handler.ErrReadTimeout, problem.ErrSilent},
	{handler.ErrConnectionReset, problem.ErrCutOff},
	{handler.ErrUnexpectedEOF, problem.ErrCutOff},
}

// translate returns what tusd's error with a code is elsewhere.
func translate(code string) error {
	for _, t := range translations {
		if t.tusd.ErrorCode == code {
			return t.err
		}
	}
	return errors.New(code)
}
