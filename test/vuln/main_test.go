package main

import "testing"

// The scanner's answer, cut down to what counts: a vulnerability that is called, one whose module is only required.
const answer = `
	printf '%s\n' '{"config":{"protocol_version":"v1"}}' \
		'{"osv":{"id":"GO-2026-1","summary":"Panic on two-block frames"}}' '{"osv":{"id":"GO-2026-2","summary":"Not called"}}' \
		'{"finding":{"osv":"GO-2026-1","fixed_version":"v1.2.3","trace":[{"module":"example.com/m","version":"v1.2.2","function":"Decode"}]}}' \
		'{"finding":{"osv":"GO-2026-2","trace":[{"module":"example.com/n","version":"v1.0.0"}]}}'`

// What is reached and not excused fails, and so does an excuse without need, date or reason.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, excuses, want string }{
		{"not excused", "# nothing", "GO-2026-1 is reached: Panic on two-block frames (example.com/m v1.2.2, fixed in v1.2.3). See https://pkg.go.dev/vuln/GO-2026-1."},
		{"excused", "GO-2026-1 2026-11-30 frames are ours", ""},
		{"excused without need", "GO-2026-1 2026-11-30 frames are ours\nGO-2026-2 2026-11-30 never", "GO-2026-2 is excused in test/vuln/excused.txt and no longer reached: delete the line."},
		{"no date", "GO-2026-1 frames are ours", `excused.txt: "GO-2026-1 frames are ours" is not an id, a date and a reason`},
		{"no reason", "GO-2026-1 2026-11-30", `excused.txt: "GO-2026-1 2026-11-30" is not an id, a date and a reason`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := check(c.excuses, []string{"sh", "-c", answer}); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if err := check("", []string{"sh", "-c", "exit 3"}); err == nil {
		t.Error("a scan that fails passes")
	}
}
