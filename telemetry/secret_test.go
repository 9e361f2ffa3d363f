package telemetry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/tramo/tramo/telemetry"
)

// However a secret is printed, alone or in a struct, it shows [redacted].
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	const text = "correct horse"
	config := struct{ Key telemetry.Secret }{text}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", config.Key)
		fmt.Fprintf(&out, verb+"\n", config)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("text", slog.Any("key", config.Key), slog.Any("config", config))
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", slog.Any("key", config.Key), slog.Any("config", config))
	if err := json.NewEncoder(&out).Encode(config); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&out, fmt.Errorf("key %v: %w", config.Key, fmt.Errorf("%v", config)))
	if got := out.String(); strings.Contains(got, "horse") || strings.Contains(got, fmt.Sprintf("%x", "horse")) || strings.Count(got, "[redacted]") != 21 {
		t.Errorf("%d times [redacted] in\n%s", strings.Count(got, "[redacted]"), got)
	}
	if got := fmt.Sprint(telemetry.Secret("")); got != "" {
		t.Errorf("no secret prints as %q", got)
	}
}
