package client

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// feed is one GET /v1/sse: some conversations, or the device's own events.
type feed struct {
	s      *stream
	ctx    context.Context // nil before arm
	cancel context.CancelCauseFunc
	// next is the first event of each conversation that was not passed on to the session. It
	// belongs to the feed's goroutine until done is closed.
	next map[string]int64
	done chan struct{}

	lastRead signOfLife
}

// lineBytesMax bounds the bytes of a stream's line beside a frame.
const lineBytesMax = 1 << 10

// newFeed makes a feed that is not running yet; without conversations it is the device's.
func (s *stream) newFeed(next map[string]int64) *feed {
	return &feed{s: s, next: next, done: make(chan struct{})}
}

// arm prepares the feed to be opened.
func (f *feed) arm() {
	f.ctx, f.cancel = context.WithCancelCause(f.s.link.ctx)
	f.lastRead.now()
}

// errReplaced is the cause of closing a feed when another one continues its conversations.
var errReplaced = errors.New("stream replaced")

// stop ends the feed and returns the next event of each conversation.
func (f *feed) stop() map[string]int64 {
	if f.ctx != nil {
		f.cancel(errReplaced)
		<-f.done
	}
	if f.next == nil {
		return map[string]int64{}
	}
	return f.next
}

func (f *feed) hasEnded() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

func (f *feed) query() string {
	q := url.Values{}
	for id, from := range f.next {
		q["conv_id"] = append(q["conv_id"], id)
		q["from_seq"] = append(q["from_seq"], strconv.FormatInt(from, 10))
	}
	if len(q) == 0 {
		q.Set("device", "1")
	}
	return q.Encode()
}

// open requests the stream and waits until the server accepts.
func (f *feed) open() (io.ReadCloser, error) {
	address := f.s.c.base.JoinPath("/v1/sse")
	address.RawQuery = f.query()
	request, err := http.NewRequestWithContext(f.ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+f.s.link.gateway.token)
	request.Header.Set("Accept", "text/event-stream")
	timer := time.AfterFunc(dialTimeout, func() { f.cancel(errors.New("no answer from the server")) })
	defer timer.Stop()
	caller := *f.s.c.http
	caller.Timeout = 0 // it would count for the whole stream
	answer, err := caller.Do(request)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", errors.Join(context.Cause(f.ctx), err))
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		raw, err := io.ReadAll(io.LimitReader(answer.Body, errorBytesMax))
		if err != nil {
			return nil, fmt.Errorf("open stream: %w", err)
		}
		return nil, gatewayRefusal(answer, raw)
	}
	return answer.Body, nil
}

// refused handles a feed that did not open. The one refused of several conversations is found
// by bisection.
func (f *feed) refused(err error) {
	r := asRefusal(err)
	switch {
	case context.Cause(f.ctx) == errReplaced:
		return // on any error: its successor requests the same
	case r == nil || r.Code == codeUnauthorized:
		f.s.link.fail(err)
		return
	case len(f.next) == 1 || r.mayPass():
		for id := range f.next {
			f.s.link.deliver(followEnded{id, r})
		}
	default:
		halves := [2]map[string]int64{{}, {}}
		n := 0
		for id, from := range f.next {
			halves[n%2][id] = from
			n++
		}
		for _, half := range halves {
			f.s.wanted.add(feedRequest{from: half, isApart: true})
		}
	}
	f.next = nil
}

// pass passes on frames until the feed is stopped. An unexpected end is the end of the whole
// stream.
func (f *feed) pass(body io.ReadCloser) {
	defer f.cancel(nil)
	defer body.Close()
	lines := bufio.NewScanner(&watched{body, f})
	lines.Buffer(make([]byte, 0, 4<<10), frameBytesMax+lineBytesMax)
	var data []byte
	for lines.Scan() {
		line := lines.Bytes()
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if data != nil {
				data = append(data, '\n')
			}
			if data = append(data, bytes.TrimPrefix(value, []byte(" "))...); len(data) > frameBytesMax+lineBytesMax {
				f.s.link.fail(errors.New("read stream: event is too long"))
				return
			}
			continue
		}
		if len(line) > 0 || data == nil {
			continue // a comment, the type, which is in the frame too, or an id
		}
		if err := f.frame(data); err != nil {
			f.s.link.fail(fmt.Errorf("read stream: %w", err))
			return
		}
		if data = nil; f.ctx.Err() != nil {
			break
		}
	}
	err := context.Cause(f.ctx)
	switch {
	case err == errReplaced:
		return
	case err == nil:
		err = cmp.Or(lines.Err(), io.EOF)
	}
	f.s.link.fail(fmt.Errorf("read stream: %w", err))
}

// frame passes on one frame, and then records it in next.
func (f *feed) frame(data []byte) error {
	frame, err := gateway.DecodeFrame(data)
	if err != nil {
		return err
	}
	var about struct {
		ConvID string `json:"conv_id,omitempty"`
		Seq    int64  `json:"seq,omitempty"`
	}
	if err := frame.Decode(&about); err != nil {
		return err
	}
	if !f.s.link.handle(f.ctx, frame) {
		return nil
	}
	next, ok := f.next[about.ConvID]
	switch {
	case !ok:
	case frame.Type == gateway.TypeEvent:
		f.next[about.ConvID] = max(next, about.Seq+1)
	case frame.Type == gateway.TypeError: // the account is no longer in it, and the feed continues without
		delete(f.next, about.ConvID)
	}
	return nil
}

// watched is a reader that records the time of its last read.
type watched struct {
	io.Reader
	f *feed
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.f.lastRead.now()
	}
	return n, err
}
