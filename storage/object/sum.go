package object

import "github.com/tus/tusd/v2/pkg/handler"

// Summed is implemented by the uploads of a [Store].
type Summed interface {
	// Sum returns the SHA-256 of all bytes up to the offset.
	Sum() ([]byte, error)
}

var _ interface {
	Summed
	handler.Upload
} = (*upload)(nil)

// Sum implements [Summed].
func (u *upload) Sum() ([]byte, error) {
	h, err := resumeHash(u.content.HashState)
	if err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}
