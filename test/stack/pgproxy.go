package stack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A PostgresMoment is a moment in a transaction of a program.
type PostgresMoment string

// The moments. A program may send COMMIT together with what comes before it, or on its own.
const (
	Asking     PostgresMoment = "asking"     // a statement is about to reach Postgres
	Committing PostgresMoment = "committing" // COMMIT is about to reach Postgres
	Committed  PostgresMoment = "committed"  // it is committed, and the program has not been told
)

// A PostgresMessage is a message that a [PostgresProxy] is about to pass on.
type PostgresMessage struct {
	Moment    PostgresMoment
	SQL       string // the statement; of a commit, all statements of the transaction
	Arguments []byte // of all statements of the transaction so far, as pgx has encoded them
	Backend   uint32 // the process id of Postgres' end of the connection
}

// A PostgresFault is what becomes of a message. The zero PostgresFault lets it pass.
type PostgresFault struct {
	// Hold is called before the message is passed on, which happens when it returns; nil for no delay. What came before the
	// message has been passed on.
	Hold func()
	// Cut closes the connection at both ends, after Hold, without passing the message on.
	Cut bool
}

func (f PostgresFault) happens() bool { return f.Hold != nil || f.Cut }

// PostgresProxy stands between programs and a Postgres, whose protocol it understands as far as it is needed to tell one
// transaction's moments from another's (PostgreSQL documentation, "Frontend/Backend Protocol"). It outlives a restart of
// Postgres.
type PostgresProxy struct {
	listener net.Listener
	socket   string
	running  sync.WaitGroup

	mu      sync.Mutex
	choose  func(PostgresMessage) PostgresFault
	conns   map[net.Conn]bool
	stopped bool
}

// NewPostgresProxy listens on a free loopback port and passes everything on to p.
func NewPostgresProxy(p *Postgres) (*PostgresProxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy to Postgres: %w", err)
	}
	x := &PostgresProxy{listener: listener, socket: filepath.Join(p.socket, pgSocketName), conns: map[net.Conn]bool{}}
	x.running.Go(x.accept)
	return x, nil
}

// Addr returns the host:port that programs connect to.
func (x *PostgresProxy) Addr() string { return x.listener.Addr().String() }

// URL returns the address of database for user by way of addr, which leads to the proxy: its own, or that of what is before it.
func (x *PostgresProxy) URL(addr, user, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(user), Host: addr, Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Fault lets choose decide about each statement and commit from now on; nil lets all pass.
func (x *PostgresProxy) Fault(choose func(PostgresMessage) PostgresFault) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.choose = choose
}

// Stop ends the proxy and every connection through it. It may be called twice.
func (x *PostgresProxy) Stop() {
	_ = x.listener.Close() // it may be closed
	x.mu.Lock()
	x.stopped, x.choose = true, nil
	for conn := range x.conns {
		conn.Close()
	}
	x.mu.Unlock()
	x.running.Wait()
}

func (x *PostgresProxy) accept() {
	for {
		program, err := x.listener.Accept()
		if err != nil {
			return // stopped
		}
		x.running.Go(func() { x.pass(program) })
	}
}

func (x *PostgresProxy) pass(program net.Conn) {
	defer program.Close()
	postgres, err := net.Dial("unix", x.socket)
	if err != nil {
		return // Postgres is down
	}
	defer postgres.Close()
	x.enlist(program, postgres)
	defer x.delist(program, postgres)
	s := &pgSession{proxy: x, prepared: map[string]string{}}
	var both sync.WaitGroup
	for _, carry := range []func() error{
		func() error { return s.ask(postgres, program) },
		func() error { return s.answer(program, postgres) },
	} {
		both.Go(func() {
			_ = carry() // whatever ends one direction ends both
			program.Close()
			postgres.Close()
		})
	}
	both.Wait()
}

func (x *PostgresProxy) enlist(conns ...net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, conn := range conns {
		x.conns[conn] = true
		if x.stopped {
			conn.Close()
		}
	}
}

func (x *PostgresProxy) delist(conns ...net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, conn := range conns {
		delete(x.conns, conn)
	}
}

// A pgSession is one connection of a program.
type pgSession struct {
	proxy *PostgresProxy

	mu        sync.Mutex
	prepared  map[string]string // SQL by the name of a prepared statement
	sql       []string          // of the transaction
	arguments []byte
	backend   uint32
}

var errCut = errors.New("cut by the proxy")

// ask carries what the program sends.
func (s *pgSession) ask(to io.Writer, from io.Reader) error {
	in, out := bufio.NewReaderSize(from, copySize), bufio.NewWriterSize(to, copySize)
	defer out.Flush()
	if err := copyStartup(out, in); err != nil {
		return err
	}
	return s.carry(in, out, s.asked)
}

// answer carries what Postgres sends.
func (s *pgSession) answer(to io.Writer, from io.Reader) error {
	return s.carry(bufio.NewReaderSize(from, copySize), bufio.NewWriterSize(to, copySize), s.answered)
}

func (s *pgSession) carry(in *bufio.Reader, out *bufio.Writer, fault func(kind byte, body []byte) (PostgresFault, error)) error {
	for {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		message, err := readMessage(in)
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		f, err := fault(message[0], message[5:])
		if err != nil {
			return err
		}
		if f.happens() {
			if err := out.Flush(); err != nil {
				return err
			}
			if f.Hold != nil {
				f.Hold()
			}
			if f.Cut {
				return errCut
			}
		}
		if _, err := out.Write(message); err != nil {
			return err
		}
	}
}

// copyStartup passes on the first message, which has no type.
func copyStartup(to io.Writer, from io.Reader) error {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return err
	}
	if _, err := to.Write(head[:]); err != nil {
		return err
	}
	_, err := io.CopyN(to, from, int64(binary.BigEndian.Uint32(head[:]))-4)
	return err
}

// readMessage returns a message with its type and length.
func readMessage(from io.Reader) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return nil, err
	}
	message := make([]byte, 1+binary.BigEndian.Uint32(head[1:]))
	copy(message, head[:])
	_, err := io.ReadFull(from, message[5:])
	return message, err
}

// asked looks at a message of the program: which statement it prepares, and which it executes.
func (s *pgSession) asked(kind byte, body []byte) (f PostgresFault, err error) {
	switch kind {
	case 'P':
		var m pgproto3.Parse
		if err := m.Decode(body); err != nil {
			return f, err
		}
		s.mu.Lock()
		s.prepared[m.Name] = m.Query
		s.mu.Unlock()
	case 'B':
		var m pgproto3.Bind
		if err := m.Decode(body); err != nil {
			return f, err
		}
		s.mu.Lock()
		sql := s.prepared[m.PreparedStatement]
		s.mu.Unlock()
		return s.executes(sql, m.Parameters), nil
	case 'Q':
		var m pgproto3.Query
		if err := m.Decode(body); err != nil {
			return f, err
		}
		return s.executes(m.String, nil), nil
	}
	return f, nil
}

func (s *pgSession) executes(sql string, arguments [][]byte) PostgresFault {
	s.mu.Lock()
	for _, a := range arguments {
		s.arguments = append(s.arguments, a...)
	}
	s.sql = append(s.sql, sql)
	m := PostgresMessage{Moment: Asking, SQL: sql, Arguments: s.arguments, Backend: s.backend}
	if commits(sql) {
		m.Moment, m.SQL = Committing, strings.Join(s.sql, "\n")
	}
	s.mu.Unlock()
	return s.proxy.faultOf(m)
}

// commits reports whether the last of some statements is COMMIT.
func commits(sql string) bool {
	sql = strings.TrimRight(sql, "; \n\t")
	return strings.EqualFold(strings.TrimSpace(sql[strings.LastIndex(sql, ";")+1:]), "commit")
}

// answered looks at a message of Postgres: whether it has committed, and whether the transaction is over.
func (s *pgSession) answered(kind byte, body []byte) (f PostgresFault, err error) {
	switch kind {
	case 'K':
		s.mu.Lock()
		s.backend = binary.BigEndian.Uint32(body)
		s.mu.Unlock()
	case 'C':
		if string(body) != "COMMIT\x00" {
			return f, nil
		}
		s.mu.Lock()
		m := PostgresMessage{Moment: Committed, SQL: strings.Join(s.sql, "\n"), Arguments: s.arguments, Backend: s.backend}
		s.mu.Unlock()
		return s.proxy.faultOf(m), nil
	case 'Z':
		if string(body) == "I" { // idle
			s.mu.Lock()
			s.sql, s.arguments = nil, nil
			s.mu.Unlock()
		}
	}
	return f, nil
}

func (x *PostgresProxy) faultOf(m PostgresMessage) (f PostgresFault) {
	x.mu.Lock()
	choose := x.choose
	x.mu.Unlock()
	if choose != nil {
		f = choose(m)
	}
	return f
}
