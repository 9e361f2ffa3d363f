package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// A worker seals what the audit log has from an hour ago. An operator verifies it, keeps the hash, and is told by the command,
// and by its exit status, when the owner of the database changes an entry, or makes the log and its seals anew.
func TestAuditVerifyCommand(t *testing.T) {
	t.Parallel()
	in := newIsolated(t)
	owner := func(sql string) {
		t.Helper()
		in.exec(t, `set session_replication_role = replica`) // no trigger stands in the owner's way
		in.exec(t, sql)
	}
	in.user(t)
	out, err := in.Tramo(stack.Context(t), "tenant", "set", "acme", "--quota", "1GiB")
	stack.Must(t, err)
	if !strings.Contains(out, "acme") {
		t.Fatalf("the tenant is %s", out)
	}
	owner(`update audit set at = at - interval '1 hour'`)
	worker, err := in.work(stack.Context(t), "TRAMO_AUDIT_SEAL_INTERVAL=1s")
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, worker.Stop()) })

	type result struct {
		Seals   int64
		Entries int64
		Head    string
		Finding struct {
			Fault string
			Seq   int64
		}
	}
	verify := func(args ...string) (r result, out string, err error) {
		t.Helper()
		out, err = in.Tramo(stack.Context(t), append([]string{"audit", "verify", "--tenant", "acme", "--json"}, args...)...)
		line, _, _ := strings.Cut(out, "\n")
		stack.Must(t, json.Unmarshal([]byte(line), &r))
		return r, out, err
	}
	var kept result
	stack.Until(t, "a seal", func() bool {
		kept, _, err = verify()
		stack.Must(t, err)
		return kept.Seals == 1
	})
	if kept.Entries == 0 || len(kept.Head) != 64 {
		t.Errorf("verified: %+v", kept)
	}
	if _, out, err := verify("--expect", strings.ToUpper(kept.Head)); err != nil {
		t.Errorf("the hash that was printed: %v, %s", err, out)
	}
	if _, _, err := verify("--expect", strings.Repeat("0", 64)); err == nil {
		t.Error("a hash of no seal is accepted")
	}
	if out, err := in.Tramo(stack.Context(t), "audit", "verify", "--expect", "abc"); err == nil || !strings.Contains(out+err.Error(), "64 hexadecimal digits") {
		t.Errorf("half a hash: %v, %s", err, out)
	}

	first := in.count(t, `select min(seq) from audit a join tenants t on t.id = a.tenant_id where t.name = 'acme'`)
	owner(fmt.Sprintf(`update audit set actor = 'ben' where seq = %d`, first))
	r, out, err := verify()
	if err == nil || r.Finding.Fault != "entry_changed" || r.Finding.Seq != int64(first) {
		t.Errorf("a changed entry: %v, %s", err, out)
	}
	text, err := in.Tramo(stack.Context(t), "audit", "verify")
	if err == nil || !strings.Contains(text, fmt.Sprintf("FAULT entry %d, made at ", first)) || !strings.Contains(text, "was changed") {
		t.Errorf("as text: %v, %s", err, text)
	}

	// The log is sealed anew by the owner, who has all that it takes: only the hash that was kept tells.
	owner(`delete from audit_seals`)
	stack.Until(t, "another seal", func() bool {
		r, out, err = verify()
		stack.Must(t, err)
		return r.Seals == 1
	})
	if r, out, err := verify("--expect", kept.Head); err == nil || r.Head == kept.Head {
		t.Errorf("a log that was sealed anew: %v, %s", err, out)
	}
}
