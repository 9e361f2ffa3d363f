package webhook

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/storage"

	"github.com/tramo/tramo/test/stack"
)

func page(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/reference/webhooks.md")
	stack.Must(t, err)
	return string(b)
}

// docs/reference/webhooks.md explains each type and each error, and nothing else.
func TestExplained(t *testing.T) {
	t.Parallel()
	words := regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\|").FindAllStringSubmatch(page(t), -1)
	var explained []string
	for _, w := range words {
		explained = append(explained, w[1])
	}
	there := append(storage.AnnouncementTypes(), storage.AnnounceWebhookTest, errorDisabled)
	source, err := os.ReadFile("send.go")
	stack.Must(t, err)
	for _, w := range regexp.MustCompile(`error[A-Z]\w+\s+= "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		there = append(there, w[1])
	}
	slices.Sort(explained)
	slices.Sort(there)
	stack.Want(t, explained, there, "explained types and errors")
}

// The page's code for Node accepts what we send, with either secret during a rotation, and nothing else.
func TestNodeVerifies(t *testing.T) {
	t.Parallel()
	_, code, _ := strings.Cut(page(t), "```js\n")
	code, _, found := strings.Cut(code, "```")
	if !found {
		t.Fatal("the page has no code for Node")
	}
	old, current, now := newSecret(), newSecret(), time.Now()
	body := `{"type":"upload.completed","data":{"filename":"año.jpg"}}`
	try := func(secret, body string, at time.Time, sent envelope) bool {
		t.Helper()
		signatures, err := sign(sent, at)
		stack.Must(t, err)
		headers, err := json.Marshal(map[string]string{
			"webhook-id": sent.id, "webhook-timestamp": strconv.FormatInt(at.Unix(), 10), "webhook-signature": signatures,
		})
		stack.Must(t, err)
		node := exec.CommandContext(t.Context(), "node", "--input-type=module", "-e", code+
			"console.log(verify(process.env.SECRET, "+string(headers)+", Buffer.from(process.env.BODY)));")
		node.Env = append(os.Environ(), "SECRET="+secret, "BODY="+body)
		out, err := node.CombinedOutput()
		if err != nil {
			t.Fatalf("node: %v\n%s", err, out)
		}
		return strings.TrimSpace(string(out)) == "true"
	}
	sent := envelope{id: "x", body: []byte(body), secrets: []string{current, old}}
	for name, c := range map[string]struct {
		secret, body string
		at           time.Time
		want         bool
	}{
		"current":      {current, body, now, true},
		"old":          {old, body, now, true},
		"other secret": {newSecret(), body, now, false},
		"other body":   {current, body + " ", now, false},
		"an hour ago":  {current, body, now.Add(-time.Hour), false},
	} {
		stack.Want(t, try(c.secret, c.body, c.at, sent), c.want, "%s is accepted", name)
	}
}
