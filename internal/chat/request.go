package chat

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"waxwing.im/waxwing/client"
)

// The bounds of what programs request.
const (
	// lineBytesMax bounds a line of input. A message has at most client.TextBytesMax, and each of
	// its bytes at most six in JSON.
	lineBytesMax = 8 * client.TextBytesMax
	// waitsMax bounds the requests of one program that are waited for at a time; the next line is
	// read after one of them.
	waitsMax    = 64
	reqBytesMax = 256
	waitMax     = 24 * time.Hour
)

// The codes of requests that are not understood.
const (
	codeBadJSON    = "bad_json"
	codeTooLong    = "too_long"
	CodeBadRequest = "bad_request"
	codeUnknownOp  = "unknown_op"
)

// program is a program that makes requests as JSON lines, each of which gets one answer.
type program struct {
	chat   *Terminal
	screen *screen        // to which the answers are written
	waits  sync.WaitGroup // requests that are waited for
	slots  chan struct{}

	watches     sync.WaitGroup
	showsEvents bool
}

func newProgram(t *Terminal, s *screen) *program {
	return &program{chat: t, screen: s, slots: make(chan struct{}, waitsMax)}
}

// operation does what a request asks for. result holds the fields of its answer, and may be
// changed by wait, which blocks until it is done; nil if there is nothing to wait for.
type operation func(p *program, ctx context.Context, params json.RawMessage) (result any, wait func(ctx context.Context) error, err error)

// with makes an operation of a function with typed parameters; unknown ones are refused.
func with[In any](do func(p *program, ctx context.Context, in In) (any, func(ctx context.Context) error, error)) operation {
	return func(p *program, ctx context.Context, params json.RawMessage) (any, func(ctx context.Context) error, error) {
		var in In
		decoder := json.NewDecoder(bytes.NewReader(params))
		decoder.DisallowUnknownFields()
		var kind *json.UnmarshalTypeError
		switch err := decoder.Decode(&in); {
		case errors.As(err, &kind):
			return nil, nil, failure{CodeBadRequest, fmt.Errorf("%s: %s is of the wrong type", kind.Field, kind.Value)}
		case err != nil:
			return nil, nil, failure{CodeBadRequest, errors.New(strings.TrimPrefix(err.Error(), "json: "))}
		}
		return do(p, ctx, in)
	}
}

// answer begins each answer; the fields of the result follow.
type answer struct {
	Type  string          `json:"type"`
	Req   json.RawMessage `json:"req,omitempty"`
	Op    string          `json:"op,omitempty"`
	OK    bool            `json:"ok"`
	Code  string          `json:"code,omitempty"`
	Error string          `json:"error,omitempty"`
}

// handle carries out the request in a line and prints its answer, in the background if it has to
// be waited for.
func (p *program) handle(ctx context.Context, line []byte) {
	a := answer{Type: "answer"}
	var fields map[string]json.RawMessage
	switch err := json.Unmarshal(line, &fields); {
	case err != nil:
		p.reply(a, nil, failure{codeBadJSON, fmt.Errorf("not a JSON object: %w", err)})
		return
	case !utf8.Valid(line):
		p.reply(a, nil, failure{codeBadJSON, errors.New("not UTF-8")})
		return
	}
	if a.Req = fields["req"]; len(a.Req) > reqBytesMax {
		a.Req = nil
		p.reply(a, nil, failure{CodeBadRequest, fmt.Errorf("req has more than %d bytes", reqBytesMax)})
		return
	}
	if err := json.Unmarshal(fields["op"], &a.Op); err != nil || a.Op == "" {
		p.reply(a, nil, failure{CodeBadRequest, errors.New("op is missing, or not a text")})
		return
	}
	do, ok := operations()[a.Op]
	if !ok {
		p.reply(a, nil, failure{codeUnknownOp, fmt.Errorf("unknown op: want one of %s", strings.Join(slices.Sorted(maps.Keys(operations())), ", "))})
		return
	}
	delete(fields, "op")
	delete(fields, "req")
	params, err := json.Marshal(fields)
	if err != nil {
		p.reply(a, nil, err)
		return
	}
	result, wait, err := do(p, context.WithValue(ctx, reqKey{}, a.Req), params)
	if err != nil || wait == nil {
		p.reply(a, result, err)
		return
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
	}
	p.waits.Go(func() {
		p.reply(a, result, wait(ctx))
		select {
		case <-p.slots:
		default: // ctx has ended before there was one
		}
	})
}

// reply prints an answer.
func (p *program) reply(a answer, result any, err error) {
	a.OK = err == nil
	if err != nil {
		a.Code, a.Error = CodeOf(err), err.Error()
	}
	line, failed := json.Marshal(a)
	if failed == nil && result != nil {
		var rest []byte
		if rest, failed = json.Marshal(result); failed == nil && len(rest) > 2 {
			line = append(append(line[:len(line)-1], ','), rest[1:]...)
		}
	}
	if failed != nil {
		panic(failed) // numbers, texts and parts of a request that was read
	}
	p.screen.raw(line)
	if p.chat != nil {
		p.chat.audience.change()
	}
}

// typedLine is a line of input; isLong: it has more than lineBytesMax, and only the
// first is kept.
type typedLine struct {
	text   string
	isLong bool
}

// readLines reads in a goroutine of its own, which may outlive the chat: nothing interrupts a read
// from a terminal.
func readLines(in io.Reader) <-chan typedLine {
	lines := make(chan typedLine)
	go func() {
		defer close(lines)
		reader := bufio.NewReader(in)
		for {
			line, err := readLine(reader)
			if err != nil && line.text == "" && !line.isLong {
				return
			}
			lines <- line
		}
	}()
	return lines
}

// readLine reads a line without its end. It keeps no more than lineBytesMax of it.
func readLine(in *bufio.Reader) (line typedLine, err error) {
	var text []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(text)+len(part) > lineBytesMax {
			line.isLong, text = true, text[:1]
		}
		if !line.isLong {
			text = append(text, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			line.text = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
			if errors.Is(err, io.EOF) && (line.text != "" || line.isLong) {
				err = nil
			}
			return line, err
		}
	}
}

// duration is a time to wait, as "60s".
type duration time.Duration

// UnmarshalText reads the text of time.ParseDuration.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < 0 || parsed > waitMax {
		return errors.New("wait: want a duration up to 24h, such as 60s")
	}
	*d = duration(parsed)
	return nil
}
