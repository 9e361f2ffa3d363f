package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Binaries are built programs of this repository.
type Binaries struct {
	dir string
	ownDirs
}

// startDir is remembered because StartS3 moves the working directory.
var startDir, startDirErr = os.Getwd()

// Build makes sure of the programs below cmd/ with these names. If TRAMO_BIN names a directory, as make test does,
// they must be there; else they are built into a temporary directory, which Remove removes.
func Build(ctx context.Context, names ...string) (*Binaries, error) {
	b := &Binaries{dir: os.Getenv("TRAMO_BIN")}
	if b.dir != "" {
		for _, name := range names {
			if _, err := os.Stat(b.Path(name)); err != nil {
				return nil, fmt.Errorf("find %s in TRAMO_BIN: %w", name, err)
			}
		}
		return b, nil
	}
	root, err := RepoRoot()
	if err != nil {
		return nil, err
	}
	if b.dir, err = b.tempDir("", "programs"); err != nil {
		return nil, err
	}
	args := []string{"build", "-o", b.dir + string(filepath.Separator)}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	if _, err := Run(ctx, ProcessConfig{Path: "go", Name: "go build", Args: args, Dir: root}); err != nil {
		return nil, errors.Join(err, b.Remove())
	}
	return b, nil
}

// Path returns the program's absolute path.
func (b *Binaries) Path(name string) string { return filepath.Join(b.dir, name) }

// Remove removes what Build has built.
func (b *Binaries) Remove() error { return b.remove() }

// RepoRoot returns the directory of go.mod, above the directory in which this process started.
func RepoRoot() (string, error) {
	if startDirErr != nil {
		return "", fmt.Errorf("find go.mod: %w", startDirErr)
	}
	for dir := startDir; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find go.mod: none in %s or above", startDir)
		}
	}
}
