package chat

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/peercred"
)

// socketFile is the socket in a home through which other processes of its owner talk to the one
// that has it open, as programs do by standard input and output.
const socketFile = "chat.sock"

const (
	// connectionsMax bounds the processes that talk to one chat at a time.
	connectionsMax = 32
	// unreadBytesMax bounds the lines that a process has not read; then it is cut off.
	unreadBytesMax = 16 << 20
	writeTimeout   = 10 * time.Second
	closeTimeout   = time.Second
	// helloTimeout bounds the wait for the first line of a process, which may be stopped.
	helloTimeout = 2 * time.Second
)

// socket serves the connections of other processes.
type socket struct {
	chat     *Terminal
	listener net.Listener
	tasks    sync.WaitGroup
	slots    chan struct{}

	ctx      context.Context // of requests; ends with that of Open
	cancel   context.CancelFunc
	ending   context.Context // ends when no more are taken
	endsSoon context.CancelFunc
}

// greeting is the first line of a connection.
type greeting struct {
	Type   string `json:"type"` // hello
	DID    string `json:"did"`
	Device string `json:"device"`
	Events bool   `json:"events"` // whether the process reads the events of the home
}

// listen makes the socket of a home. A file that is there is of a process that has ended: this one
// has the home open.
func listen(ctx context.Context, t *Terminal, path string) (*socket, error) {
	if !peercred.IsKnown {
		return nil, errors.ErrUnsupported
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &socket{chat: t, listener: listener, slots: make(chan struct{}, connectionsMax)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.ending, s.endsSoon = context.WithCancel(s.ctx)
	s.tasks.Go(s.accept)
	return s, nil
}

// close ends all connections, once their requests are answered. A chat that people see ends at
// once, and those that wait are answered as stored.
func (s *socket) close() {
	s.endsSoon()
	if s.chat.isTalking {
		s.cancel()
	}
	s.listener.Close()
	s.tasks.Wait()
}

func (s *socket) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		select {
		case s.slots <- struct{}{}:
			s.tasks.Go(func() {
				defer func() { <-s.slots }()
				s.serve(conn)
			})
		default:
			conn.Close()
		}
	}
}

// serve answers the requests of one process.
func (s *socket) serve(conn net.Conn) {
	defer conn.Close()
	out := newLineQueue(conn)
	view := newScreen(s.chat.guest(nil, out, out), true)
	defer out.close()
	if err := isOwn(conn, "process"); err != nil {
		newProgram(s.chat, view).reply(answer{Type: "answer"}, nil, err)
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	p := newProgram(s.chat, view)
	hello, err := json.Marshal(greeting{"hello", s.chat.self, s.chat.client.DeviceID(), s.chat.isTalking})
	if err != nil {
		return
	}
	view.raw(hello)
	unblock := context.AfterFunc(s.ending, func() { conn.SetReadDeadline(time.Now()) })
	defer unblock()
	in := bufio.NewReader(conn)
	for s.ending.Err() == nil {
		line, err := readLine(in)
		switch {
		case err != nil:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				cancel()
			}
		case line.isLong:
			p.reply(answer{Type: "answer"}, nil, errTooLong)
			continue
		case line.text != "":
			p.handle(ctx, []byte(line.text))
			continue
		default:
			continue
		}
		break
	}
	p.waits.Wait()
	cancel()
	p.watches.Wait()
}

// isOwn returns an error if the process at the other end belongs to another user.
func isOwn(conn net.Conn, what string) error {
	peer, err := peercred.UID(conn.(*net.UnixConn))
	if err != nil {
		return fmt.Errorf("ask who the other process belongs to: %w", err)
	}
	uid := int(peer)
	if own := ownUID(); uid != own {
		return failure{"other_user", fmt.Errorf("the %s belongs to another user (%d, not %d): it is not talked to", what, uid, own)}
	}
	return nil
}

// ownUID returns the user of this process, for tests another one.
var ownUID = os.Geteuid

// lineQueue writes lines to a connection without blocking: a process that does not read is cut
// off.
type lineQueue struct {
	conn  net.Conn
	ended chan struct{}

	mu       sync.Mutex
	changed  *sync.Cond
	lines    [][]byte // guarded by mu
	bytes    int      // of lines; guarded by mu
	isClosed bool     // guarded by mu
}

var errCutOff = errors.New("the other process does not read")

func newLineQueue(conn net.Conn) *lineQueue {
	q := &lineQueue{conn: conn, ended: make(chan struct{})}
	q.changed = sync.NewCond(&q.mu)
	go q.write()
	return q
}

func (q *lineQueue) write() {
	defer close(q.ended)
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for len(q.lines) == 0 && !q.isClosed {
			q.changed.Wait()
		}
		if len(q.lines) == 0 {
			return
		}
		line := q.lines[0]
		q.lines, q.bytes = q.lines[1:], q.bytes-len(line)
		timeout := writeTimeout
		if q.isClosed {
			timeout = closeTimeout
		}
		q.conn.SetWriteDeadline(time.Now().Add(timeout))
		q.mu.Unlock()
		_, err := q.conn.Write(line)
		q.mu.Lock()
		if err != nil {
			q.lines, q.isClosed = nil, true
			q.conn.Close()
			return
		}
	}
}

// Write queues a line.
func (q *lineQueue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.isClosed:
		return 0, net.ErrClosed
	case q.bytes > unreadBytesMax:
		q.conn.Close()
		return 0, errCutOff
	}
	q.lines, q.bytes = append(q.lines, bytes.Clone(line)), q.bytes+len(line)
	q.changed.Signal()
	return len(line), nil
}

// close writes what is queued.
func (q *lineQueue) close() {
	q.mu.Lock()
	q.isClosed = true
	q.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	q.changed.Signal()
	q.mu.Unlock()
	<-q.ended
}

// Running is a connection to the process that has a home open.
type Running struct {
	conn net.Conn
	in   *bufio.Reader
	// HasEvents reports that the process reads the events of the home, so that it can pass them on.
	HasEvents bool
}

// Dial connects to the process that has the home open; nil if there is none, or none that can be
// talked to. Open reports which.
func Dial(ctx context.Context, o Options) (*Running, error) {
	if !peercred.IsKnown {
		return nil, nil
	}
	dir, err := o.homeDir()
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("unix", filepath.Join(dir, socketFile))
	if err != nil {
		return nil, nil // there is none, or it has ended
	}
	r := &Running{conn: conn, in: bufio.NewReader(conn)}
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })()
	if err := r.greet(o, dir); err != nil {
		conn.Close()
		return nil, err
	}
	return r, nil
}

// greet checks that the process is one of this user and has the home that the options describe.
func (r *Running) greet(o Options, dir string) error {
	if err := isOwn(r.conn, "socket "+filepath.Join(dir, socketFile)); err != nil {
		return err
	}
	home, err := o.openHome()
	if err != nil {
		return err
	}
	account, err := o.account(home)
	if err != nil {
		return err
	}
	r.conn.SetReadDeadline(time.Now().Add(helloTimeout))
	line, err := r.receive()
	r.conn.SetReadDeadline(time.Time{})
	var hello greeting
	if err == nil {
		err = json.Unmarshal(line, &hello)
	}
	switch {
	case err != nil || hello.Type != "hello":
		return fmt.Errorf("%w: the process that has %s open does not answer", client.ErrInUse, dir)
	case hello.DID != account.DID():
		return fmt.Errorf("%w: %s is open for another account", client.ErrHome, dir)
	}
	r.HasEvents = hello.Events
	return nil
}

func (r *Running) receive() ([]byte, error) {
	line, err := r.in.ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		err = failure{CodeInUse, errors.New("the waxwing chat that has this home open has ended")}
	}
	return line, err
}

// Command has the running process execute a command line, copies its output, and returns its exit
// code.
func (r *Running) Command(ctx context.Context, args []string, out, errors io.Writer) (int, error) {
	defer context.AfterFunc(ctx, func() { r.conn.Close() })()
	defer r.conn.Close()
	request, err := json.Marshal(map[string]any{"op": "run", "args": args})
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(r.conn, "%s\n", request); err != nil {
		return 0, err
	}
	for {
		line, err := r.receive()
		if err != nil {
			return 0, err
		}
		var message struct {
			answer
			Stream string `json:"stream"`
			Text   string `json:"text"`
			Exit   int    `json:"exit"`
		}
		if err := json.Unmarshal(line, &message); err != nil {
			return 0, err
		}
		stream := out
		if message.Stream == "err" {
			stream = errors
		}
		switch {
		case message.Type == "output":
			if _, err := io.WriteString(stream, message.Text); err != nil {
				return 0, err
			}
		case message.Type == "answer" && message.OK:
			return message.Exit, nil
		case message.Type == "answer":
			return 0, failure{message.Code, fmt.Errorf("%s", message.Error)}
		}
	}
}

// Close ends the connection.
func (r *Running) Close() error { return r.conn.Close() }

// Talk passes on the lines of a program to the running process, and the answers and events to the
// program, until the input ends and all is answered, or ctx ends.
func (r *Running) Talk(ctx context.Context, in io.Reader, out io.Writer) error {
	defer context.AfterFunc(ctx, func() { r.conn.Close() })()
	defer r.conn.Close()
	if _, err := io.WriteString(r.conn, `{"op":"events"}`+"\n"); err != nil {
		return err
	}
	s := &screen{out: out, asJSON: true}
	var left atomic.Int64 // what has no answer, and the input
	left.Store(2)
	settle := func() {
		if left.Add(-1) == 0 {
			r.conn.Close()
		}
	}
	go func() {
		defer settle()
		for line := range readLines(in) {
			switch {
			case line.isLong:
				newProgram(nil, s).reply(answer{Type: "answer"}, nil, errTooLong)
			case line.text != "":
				left.Add(1)
				if _, err := fmt.Fprintln(r.conn, line.text); err != nil {
					return
				}
			}
		}
	}()
	for isFirst := true; ; {
		line, err := r.receive()
		if err != nil && (left.Load() == 0 || ctx.Err() != nil) {
			return nil
		}
		if err != nil {
			return err
		}
		var a answer
		isAnswer := json.Unmarshal(line, &a) == nil && a.Type == "answer"
		if isAnswer && isFirst { // that of events, which the program has not requested
			isFirst = false
		} else {
			s.raw(bytes.TrimSuffix(line, []byte("\n")))
		}
		if isAnswer {
			settle()
		}
		if s.err != nil {
			return s.err
		}
	}
}
