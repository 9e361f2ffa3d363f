package server_test

import (
	"regexp"
	"strings"
	"testing"
)

// The type of a problem is the path of a page that explains it, without a token. The list of all problems links to each.
func TestProblemPages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	nobody := user{t: t}
	open := func(path string) string {
		t.Helper()
		a := nobody.do("GET", s.url+path, nil, "Authorization", "").want(t, 200, "")
		a.wantHeader(t, "Content-Type", "text/html; charset=UTF-8")
		a.wantNoText(t, ".md") // which is not served
		return string(a.body)
	}
	list := open("/problems/")
	nobody.do("GET", s.url+"/problems", nil, "Authorization", "").want(t, 200, "") // after a redirect
	names := regexp.MustCompile(`<a href="([a-z0-9-]+)">`).FindAllStringSubmatch(list, -1)
	if len(names) < 40 || !strings.Contains(list, "<table>") {
		t.Errorf("%d problems are listed in\n%s", len(names), list)
	}
	for _, n := range names {
		if page := open("/problems/" + n[1]); !strings.Contains(page, "<h1>"+n[1]+"</h1>") || strings.Contains(page, "<li>") || !strings.Contains(page, "</h1>\n<p>") {
			t.Errorf("%s: %s", n[1], page)
		}
	}
	nobody.do("HEAD", s.url+"/problems/busy", nil, "Authorization", "").want(t, 200, "")
}
