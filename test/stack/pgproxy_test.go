package stack_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// The moments of a transaction are recognised, whether BEGIN, its statements and COMMIT travel each on its own or all at
// once, and whether they are prepared.
func TestPostgresProxyMoments(t *testing.T) {
	t.Parallel()
	whole := []string{"committing: begin\nselect 'x'\ncommit", "committed: begin\nselect 'x'\ncommit"}
	apart := append([]string{"asking: begin", "asking: select 'x'"}, whole...)
	together := []string{"committing: begin ;select 'x' ;commit", "committed: begin ;select 'x' ;commit"} // as pgx writes it
	for name, c := range map[string]struct {
		mode pgx.QueryExecMode
		send func(*testing.T, *pgx.Conn)
		want []string
	}{
		"prepared, apart":    {pgx.QueryExecModeCacheStatement, transact, apart},
		"prepared, together": {pgx.QueryExecModeCacheStatement, transactAtOnce, apart},
		"simple, apart":      {pgx.QueryExecModeSimpleProtocol, transact, apart},
		"simple, together":   {pgx.QueryExecModeSimpleProtocol, transactAtOnce, together},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy, seen := newPostgresProxy(t)
			conn := connectBy(t, proxy, c.mode)
			c.send(t, conn)
			c.send(t, conn) // now all is prepared
			stack.Want(t, seen(), slices.Concat(c.want, c.want), "what the proxy saw")
		})
	}
}

// A commit whose answer is lost has happened, and one that does not arrive has not.
func TestPostgresProxyCuts(t *testing.T) {
	t.Parallel()
	for moment, want := range map[stack.PostgresMoment]int{stack.Asking: 0, stack.Committing: 0, stack.Committed: 1} {
		t.Run(string(moment), func(t *testing.T) {
			t.Parallel()
			proxy, _ := newPostgresProxy(t)
			conn := connectBy(t, proxy, pgx.QueryExecModeCacheStatement)
			table := pgx.Identifier{"cut_" + string(moment)}.Sanitize()
			execBy(t, conn, "create table "+table+" (x int)")
			held := make(chan uint32, 1)
			proxy.Fault(func(m stack.PostgresMessage) stack.PostgresFault {
				if m.Moment != moment || m.SQL == "begin" {
					return stack.PostgresFault{}
				}
				return stack.PostgresFault{Cut: true, Hold: func() { held <- m.Backend }}
			})
			backend := conn.PgConn().PID()
			if err := insert(t, conn, table); err == nil {
				t.Error("the program was told of a commit that it was not to hear of")
			}
			stack.Want(t, stack.Receive(t, "held message", held), backend, "backend")
			proxy.Fault(nil)
			var got int
			stack.Must(t, connectBy(t, proxy, pgx.QueryExecModeCacheStatement).QueryRow(stack.Context(t), "select count(*) from "+table).Scan(&got))
			stack.Want(t, got, want, "rows")
		})
	}
}

func newPostgresProxy(t *testing.T) (proxy *stack.PostgresProxy, seen func() []string) {
	t.Helper()
	proxy, err := stack.NewPostgresProxy(stack.Get(t, ground.Postgres))
	stack.Must(t, err)
	t.Cleanup(proxy.Stop)
	var mu sync.Mutex
	var all []string
	proxy.Fault(func(m stack.PostgresMessage) stack.PostgresFault {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, fmt.Sprintf("%s: %s", m.Moment, strings.ReplaceAll(m.SQL, "\n;", " ;")))
		return stack.PostgresFault{}
	})
	return proxy, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func connectBy(t *testing.T, proxy *stack.PostgresProxy, mode pgx.QueryExecMode) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(proxy.URL(proxy.Addr(), "postgres", "postgres"))
	stack.Must(t, err)
	config.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(stack.Context(t), config)
	stack.Must(t, err)
	t.Cleanup(func() { _ = conn.Close(t.Context()) }) // it may be cut
	return conn
}

func execBy(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.Exec(stack.Context(t), sql)
	stack.Must(t, err)
}

func transact(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for _, sql := range []string{"begin", "select 'x'", "commit"} {
		execBy(t, conn, sql)
	}
}

func transactAtOnce(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	var all pgx.Batch
	all.Queue("begin")
	all.Queue("select 'x'")
	all.Queue("commit")
	stack.Must(t, conn.SendBatch(stack.Context(t), &all).Close())
}

func insert(t *testing.T, conn *pgx.Conn, table string) error {
	t.Helper()
	tx, err := conn.Begin(stack.Context(t))
	stack.Must(t, err)
	if _, err := tx.Exec(stack.Context(t), "insert into "+table+" values ($1)", 1); err != nil {
		return err
	}
	return tx.Commit(stack.Context(t))
}
