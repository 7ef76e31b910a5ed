package drive

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
)

// Shot is a request that a server has but for its last bytes, so that several can be completed
// at one instant.
type Shot struct {
	fire func() (status int, err error)

	Fired, Answered time.Time // when the last bytes were written, and the answer read
	Status          int       // of HTTP; see also FirstFrame
	Header          http.Header
	Body            []byte // both of an answer by HTTP
	Err             error
}

// Fire completes the request and returns the status of the answer.
func (s *Shot) Fire() (status int, err error) {
	s.Fired = time.Now()
	s.Status, s.Err = s.fire()
	s.Answered = time.Now()
	return s.Status, s.Err
}

// Volley fires all shots at one instant and waits for their answers.
func Volley(shots []*Shot) {
	start := make(chan struct{})
	var running, ready sync.WaitGroup
	for _, shot := range shots {
		ready.Add(1)
		running.Go(func() {
			ready.Done()
			<-start
			shot.Fire()
		})
	}
	ready.Wait()
	close(start)
	running.Wait()
}

// Lines holds connections for shots by HTTP. The zero value is ready for use; it is safe for
// concurrent use.
type Lines struct {
	mu   sync.Mutex // guards the rest
	idle map[string][]*line
}

// line is a connection that carries one request at a time.
type line struct {
	conn   net.Conn
	reader *bufio.Reader
}

// Close closes the idle connections. Later shots open others.
func (l *Lines) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, list := range l.idle {
		for _, line := range list {
			line.conn.Close()
		}
	}
	l.idle = nil
}

// HTTP writes a request without its last byte. bearer is its token, "" for none; body is JSON.
func (l *Lines) HTTP(ctx context.Context, address, verb, path, bearer string, body []byte) (*Shot, error) {
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n", verb, path, address)
	if bearer != "" {
		fmt.Fprintf(&head, "Authorization: Bearer %s\r\n", bearer)
	}
	if body != nil {
		fmt.Fprintf(&head, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	head.WriteString("\r\n")
	request := append([]byte(head.String()), body...)
	line, err := l.take(ctx, address)
	if err != nil {
		return nil, err
	}
	end := len(request) - 1
	if err := line.conn.SetDeadline(time.Now().Add(callMax)); err != nil {
		return nil, err
	}
	if _, err := line.conn.Write(request[:end]); err != nil {
		line.conn.Close()
		return nil, err
	}
	shot := &Shot{}
	shot.fire = func() (int, error) {
		defer context.AfterFunc(ctx, func() { line.conn.Close() })()
		answer, body, err := line.finish(request[end:])
		if err != nil {
			line.conn.Close()
			return 0, err
		}
		shot.Header, shot.Body = answer.Header, body
		if answer.Close {
			line.conn.Close()
		} else {
			l.put(address, line)
		}
		return answer.StatusCode, nil
	}
	return shot, nil
}

// take returns an idle connection to address, or a new one.
func (l *Lines) take(ctx context.Context, address string) (*line, error) {
	l.mu.Lock()
	if list := l.idle[address]; len(list) > 0 {
		l.idle[address] = list[:len(list)-1]
		l.mu.Unlock()
		return list[len(list)-1], nil
	}
	l.mu.Unlock()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &line{conn, bufio.NewReader(conn)}, nil
}

func (l *Lines) put(address string, free *line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idle == nil {
		l.idle = map[string][]*line{}
	}
	l.idle[address] = append(l.idle[address], free)
}

// finish writes the rest of a request and reads the answer.
func (l *line) finish(rest []byte) (answer *http.Response, body []byte, err error) {
	if _, err := l.conn.Write(rest); err != nil {
		return nil, nil, err
	}
	if answer, err = http.ReadResponse(l.reader, nil); err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, answerMax))
	return answer, body, err
}

// FirstFrame opens a WebSocket for a frame, which Fire writes. The status of the answer is that of
// HTTP: 200 for a frame of type session.ready, 401 for an error unauthorized, else 500.
func FirstFrame(ctx context.Context, url string, frame []byte) (*Shot, error) {
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	return &Shot{fire: func() (int, error) {
		defer ws.CloseNow()
		ctx, cancel := context.WithTimeout(ctx, callMax)
		defer cancel()
		if err := ws.Write(ctx, websocket.MessageText, frame); err != nil {
			return 0, err
		}
		_, data, err := ws.Read(ctx)
		if err != nil {
			return 0, err
		}
		answer, err := gateway.DecodeFrame(data)
		if err != nil {
			return 0, err
		}
		var refusal gateway.Error
		switch {
		case answer.Type == gateway.TypeReady:
			return http.StatusOK, nil
		case answer.Type == gateway.TypeError && answer.Decode(&refusal) == nil && refusal.Code == gateway.CodeUnauthorized:
			return http.StatusUnauthorized, nil
		}
		return http.StatusInternalServerError, nil
	}}, nil
}
