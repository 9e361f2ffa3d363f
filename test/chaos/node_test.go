package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/tramo/tramo/test/stack"
)

// sendWithTusJS sends an upload with an unmodified tus-js-client to server, and records the answers.
func sendWithTusJS(ctx context.Context, dir string, s *site, server string, p uploadPlan, u *upload, delays string) error {
	file := filepath.Join(dir, u.name)
	if err := os.WriteFile(file, u.data, 0o600); err != nil {
		return err
	}
	root, err := stack.RepoRoot()
	if err != nil {
		return err
	}
	meta := map[string]string{"filename": u.name + ".jpg", "filetype": "image/jpeg", "client_id": u.name}
	if p.hashed {
		meta["sha256"] = u.sum
	}
	encoded, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	out, err := stack.Run(ctx, stack.ProcessConfig{
		Path: "/usr/bin/env",
		Args: []string{"node", filepath.Join(root, "test/chaos/tus.mjs"), filepath.Join(root, "web"), server + "/api/uploads", file},
		Env: stack.CleanEnv("TRAMO_TEST_TOKEN="+s.token, "TRAMO_TEST_METADATA="+string(encoded), fmt.Sprintf("TRAMO_TEST_CHUNK=%d", p.chunk),
			fmt.Sprintf("TRAMO_TEST_WITH_BODY=%v", p.withBody), "TRAMO_TEST_DELAYS="+delays),
	})
	for line := range strings.Lines(out) {
		var e struct {
			Method, Location string
			From, Offset     int64
			Status           int
			Sent, Answered   float64
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return fmt.Errorf("read %q: %w", line, err)
		}
		if e.Location != "" && e.Status == 201 {
			u.told(path.Base(e.Location))
		}
		s.journal.add(exchange{
			upload: u.name, client: "tus-js-client", method: e.Method, from: e.From, status: e.Status, offset: e.Offset,
			sent: s.journal.since(e.Sent), answered: s.journal.since(e.Answered),
		})
	}
	if err == nil {
		u.finish()
	}
	return err
}

// endless are retryDelays for tus-js-client: short ones, more than any run can use up.
func endless() string {
	return "[0,50,100" + strings.Repeat(",200,400,800", 20) + "]"
}
