// Package mlspeer lets other MLS implementations be tested against package mls: it answers the
// requests of a simple protocol, one JSON object a line, by calling mls. It is for tests; keys
// are kept in memory and returned on request.
//
// The protocol is documented in docs/command-line.md, section dev.
package mlspeer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// lineBytesMax bounds a request. The tree of a group of fifty thousand fits.
const lineBytesMax = 64 << 20

// request is one line of input. ID is returned unchanged.
type request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// response is one line of output: a result or an error.
type response struct {
	ID     json.RawMessage `json:"id"`
	Result any             `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Serve answers the requests of in on out, in order, until in ends or ctx is done. A request
// that fails is answered with its error and changes nothing. version is the answer to hello.
func Serve(ctx context.Context, in io.Reader, out io.Writer, version string) error {
	p := &peer{version: version, clients: map[string]*client{}}
	lines := bufio.NewReaderSize(in, 64<<10)
	write := json.NewEncoder(out)
	write.SetEscapeHTML(false)
	for ctx.Err() == nil {
		line, err := readLine(lines)
		if err == io.EOF {
			return nil
		}
		if err != nil && !errors.Is(err, errLineTooLong) {
			return fmt.Errorf("read a request: %w", err)
		}
		if err == nil && len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if err := write.Encode(p.answer(line, err)); err != nil {
			return fmt.Errorf("write a response: %w", err)
		}
	}
	return nil
}

var errLineTooLong = fmt.Errorf("a request has at most %d bytes", lineBytesMax)

// readLine reads to the next line feed, or to the end. A line that is too long is consumed and
// discarded, so that the next one is found.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	tooLong := false
	for {
		part, err := r.ReadSlice('\n')
		if tooLong = tooLong || len(line)+len(part) > lineBytesMax; tooLong {
			line = nil
		} else {
			line = append(line, part...)
		}
		switch {
		case err == bufio.ErrBufferFull:
		case tooLong && (err == nil || err == io.EOF):
			return nil, errLineTooLong
		case err == io.EOF && len(line) > 0:
			return line, nil
		default:
			return line, err
		}
	}
}

// answer carries out one request. Errors are returned in the response.
func (p *peer) answer(line []byte, err error) response {
	var q request
	if err == nil {
		err = json.Unmarshal(line, &q)
	}
	var result any
	if err == nil {
		result, err = p.call(q.Method, q.Params)
	}
	if q.ID == nil {
		q.ID = json.RawMessage("null")
	}
	if err != nil {
		return response{ID: q.ID, Error: err.Error()}
	}
	return response{ID: q.ID, Result: result}
}

func (p *peer) call(name string, params json.RawMessage) (any, error) {
	method, known := methods[name]
	if !known {
		return nil, fmt.Errorf("unknown method %q", name)
	}
	if len(params) == 0 {
		params = json.RawMessage("{}")
	}
	return method(p, params)
}

// method is one row of the protocol's table.
type method func(p *peer, params json.RawMessage) (any, error)

// onPeer makes a method from a function of the whole peer.
func onPeer[P any](f func(*peer, P) (any, error)) method {
	return func(p *peer, raw json.RawMessage) (any, error) {
		var params P
		if err := json.Unmarshal(raw, &params); err != nil {
			return nil, err
		}
		return f(p, params)
	}
}

// onClient makes a method from a function of the client that the parameters name.
func onClient[P any](f func(*client, P) (any, error)) method {
	return func(p *peer, raw json.RawMessage) (any, error) {
		var named struct {
			Client string `json:"client"`
		}
		if err := json.Unmarshal(raw, &named); err != nil {
			return nil, err
		}
		c, known := p.clients[named.Client]
		if !known {
			return nil, fmt.Errorf("unknown client %q", named.Client)
		}
		return onPeer(func(_ *peer, params P) (any, error) { return f(c, params) })(p, raw)
	}
}
