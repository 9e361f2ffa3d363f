package tramo

import (
	"errors"
	"time"

	"github.com/tramo/tramo/cmd/internal/cli"
)

// deletedSettings say how long there is a way back.
type deletedSettings struct {
	DeletedKeep time.Duration `default:"720h" help:"For how long a deleted upload can be restored. What is deleted keeps the time that it was deleted with."`
}

var errNoWayBack = errors.New("a deleted upload must be kept for a minute or more")

func (s deletedSettings) deleted(m *cli.Mistakes) time.Duration {
	if s.DeletedKeep < time.Minute {
		m.Check("TRAMO_DELETED_KEEP", errNoWayBack)
	}
	return s.DeletedKeep
}
