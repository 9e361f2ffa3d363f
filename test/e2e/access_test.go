package e2e

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// token is what tramo token prints.
func token(t *testing.T, env []string, args ...string) user {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := tramo.With(env...).Tramo(ctx, append([]string{"token"}, args...)...)
	stack.Must(t, err)
	return user{t: t, token: strings.TrimSpace(out)}
}

// arrived waits until the server has something of the upload, without asking for its offset.
func arrived(t *testing.T, u user, url string) {
	t.Helper()
	stack.Until(t, "byte that arrived", func() bool { return u.get(url).Offset > 0 })
}

// A crew member that asks for another's offset, sends to their upload or ends it, on the replica that has it or on the
// other, is refused, and whoever is sending does not notice. A manager takes it over from either.
func TestAccessToUploadsOfOthers(t *testing.T) {
	t.Parallel()
	tenant, ana := newTenant(t, "1GiB")
	pedro, marta := tramo.userOf(t, tenant, "pedro", "empleado"), tramo.userOf(t, tenant, "marta", "constructora")
	a, b := tramo.replicas[0], tramo.replicas[1]
	data := bytes.Repeat([]byte("obra "), 20_000)
	url := ana.create(a, len(data))
	sending := ana.stall(url, 0, data[:1000])
	arrived(t, ana, url)
	for _, r := range []replica{a, b} {
		for _, method := range []string{"HEAD", "PATCH", "DELETE"} {
			pedro.do(method, r.at(url), nil, "Upload-Offset", "0", "Content-Type", octets).want(t, http.StatusForbidden, "")
		}
	}
	sending.finish(data[1000:]).want(t, http.StatusNoContent, "")
	checkOriginal(t, idOf(url), data)

	url = ana.create(a, len(data))
	sending = ana.stall(url, 0, data[:1000])
	arrived(t, ana, url)
	marta.do("HEAD", b.at(url), nil).want(t, http.StatusOK, "")
	if got := sending.answer(); got.status == http.StatusNoContent {
		t.Errorf("whoever was sending heard %d", got.status)
	}
}

// What tramo token writes the server reads: projects narrow, issuer and audience have to be right.
func TestTokenCommand(t *testing.T) {
	t.Parallel()
	tenant, _ := newTenant(t, "1GiB")
	who := []string{"--tenant", tenant, "--user", "ana", "--role", "empleado"}
	strict := []string{"TRAMO_JWT_ISSUER=https://id.example.com", "TRAMO_JWT_AUDIENCE=tramo"}
	r := tramo.serves(t, strict...)
	list := r.URL + "/api/uploads"
	for name, c := range map[string]struct {
		user user
		want int
	}{
		"neither":        {token(t, nil, who...), http.StatusUnauthorized},
		"both":           {token(t, strict, who...), http.StatusOK},
		"other issuer":   {token(t, strict, append(who, "--jwt-issuer", "https://evil.example.com")...), http.StatusUnauthorized},
		"other audience": {token(t, strict, append(who, "--jwt-audience", "other")...), http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) { c.user.do("GET", list, nil).want(t, c.want, "") })
	}
	narrow := token(t, strict, append(who, "--projects", "torre,casa")...)
	for project, want := range map[string]int{"torre": http.StatusCreated, "casa": http.StatusCreated, "puente": http.StatusForbidden} {
		narrow.do("POST", list, nil, "Upload-Length", "5", "Upload-Metadata", metadata("project", project)).want(t, want, "")
	}
	for _, bad := range []string{"", "a/b", "torre,a b"} {
		if out, err := tramo.Tramo(stack.Context(t), append([]string{"token", "--projects=" + bad}, who...)...); err == nil {
			t.Errorf("projects %q make the token %s", bad, out)
		}
	}
}

// An admin acts in another tenant, and that tenant's manager reads it in the log.
func TestAuditOfAnAdmin(t *testing.T) {
	t.Parallel()
	tenant, ana := newTenant(t, "1GiB")
	admin, marta := tramo.userOf(t, "operators", "olga", "admin"), tramo.userOf(t, tenant, "marta", "constructora")
	a := tramo.replicas[0]
	url := ana.create(a, 5)
	if out, err := tramo.Tramo(stack.Context(t), "token", "--tenant", tenant, "--user", "eve", "--role", "admin"); err == nil {
		t.Errorf("a tenant that may not have admins gets the token %s", out)
	}
	admin.do("GET", url, nil).want(t, http.StatusNotFound, "")
	id, err := tramo.Tramo(stack.Context(t), "tenant", "add", tenant, "--if-missing")
	stack.Must(t, err)
	admin.do("GET", url, nil, "Tramo-Tenant", strings.TrimSpace(id)).want(t, http.StatusOK, "")
	log := decode[struct {
		Items []struct{ Actor, Action, Subject, Outcome string }
	}](t, marta.do("GET", a.URL+"/api/audit", nil), http.StatusOK)
	if len(log.Items) == 0 || log.Items[0] != (struct{ Actor, Action, Subject, Outcome string }{"olga", "tenant.enter", idOf(url), "done"}) {
		t.Errorf("the log has %+v", log.Items)
	}
}
