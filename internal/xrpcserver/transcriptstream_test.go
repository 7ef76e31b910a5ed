package xrpcserver

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/xrpc"
)

// eventPatience bounds a transcript's wait for an event, which is sent at once.
const eventPatience = time.Minute

// frameReader is a WebSocket of a transcript.
type frameReader struct {
	p  *player
	ws *websocket.Conn
}

// open opens a WebSocket, or is answered why not.
func (p *player) open(actor, path string) []string {
	p.t.Helper()
	r := p.request("-", http.MethodGet, path, "")
	o := &websocket.DialOptions{HTTPHeader: r.Header}
	if protocol := r.Header.Get("Sec-WebSocket-Protocol"); protocol != "" {
		o.Subprotocols = []string{protocol}
		r.Header.Del("Sec-WebSocket-Protocol")
	}
	ctx, cancel := context.WithTimeout(context.Background(), eventPatience)
	defer cancel()
	ws, response, err := websocket.Dial(ctx, strings.Replace(r.URL.String(), "http", "ws", 1), o)
	if err != nil {
		if response == nil {
			p.t.Fatal(err)
		}
		return []string{p.answer(response)}
	}
	p.t.Cleanup(func() { _ = ws.CloseNow() })
	p.sockets[actor] = &frameReader{p, ws}
	if protocol := ws.Subprotocol(); protocol != "" {
		return []string{"= 101 Sec-WebSocket-Protocol:" + protocol}
	}
	return []string{"= 101"}
}

func (p *player) socket(actor string) *frameReader {
	p.t.Helper()
	if p.sockets[actor] == nil {
		p.t.Fatalf("%s has opened nothing", actor)
	}
	return p.sockets[actor]
}

func (f *frameReader) close() { _ = f.ws.Close(websocket.StatusNormalClosure, "") }

// send sends a frame that the script has as JSON.
func (f *frameReader) send(frame string) {
	f.p.t.Helper()
	form, body, _ := strings.Cut(f.p.words.fill(frame), " ")
	kind, data := websocket.MessageText, []byte(body)
	if form == "cbor" {
		var fields xrpc.ClientFrame
		must(f.p.t, json.Unmarshal(data, &fields))
		var err error
		kind = websocket.MessageBinary
		data, err = xrpc.EncodeClientFrame(fields.Kind(), fields)
		must(f.p.t, err)
	}
	must(f.p.t, f.ws.Write(context.Background(), kind, data))
}

// next shows the next frame.
func (f *frameReader) next() string {
	f.p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), eventPatience)
	defer cancel()
	kind, data, err := f.ws.Read(ctx)
	var closed websocket.CloseError
	switch {
	case errors.As(err, &closed):
		return strings.TrimSpace(fmt.Sprintf("closed %d %s", closed.Code, closed.Reason))
	case err != nil:
		f.p.t.Fatal(err)
	case kind == websocket.MessageText:
		return "json " + string(data)
	}
	header, rest := cborText(f.p.t, data)
	payload, rest := cborText(f.p.t, rest)
	if len(rest) > 0 {
		f.p.t.Fatalf("%d bytes behind a frame", len(rest))
	}
	return "cbor " + header + " " + payload
}

// cborText shows the DAG-CBOR value that data begins with as JSON, in the order of the
// wire, and returns what follows it.
func cborText(t testing.TB, data []byte) (text string, rest []byte) {
	t.Helper()
	if len(data) == 0 {
		t.Fatal("no cbor")
	}
	switch data[0] {
	case 0xf4, 0xf5, 0xf6:
		return map[byte]string{0xf4: "false", 0xf5: "true", 0xf6: "null"}[data[0]], data[1:]
	}
	major, n, size := data[0]>>5, uint64(data[0]&31), 0
	if n >= 24 {
		size = 1 << (n - 24)
		var wide [8]byte
		copy(wide[8-size:], data[1:1+size])
		n = binary.BigEndian.Uint64(wide[:])
	}
	data = data[1+size:]
	list := func(open, end string, parts ...string) string {
		for i := range n * uint64(len(parts)) {
			var part string
			part, data = cborText(t, data)
			if open += part + parts[i%uint64(len(parts))]; i+1 == n*uint64(len(parts)) {
				open = strings.TrimSuffix(open, ",")
			}
		}
		return open + end
	}
	switch major {
	case 0:
		return fmt.Sprint(n), data
	case 1:
		return fmt.Sprint(-1 - int64(n)), data
	case 2:
		return `{"$bytes":"` + base64.StdEncoding.EncodeToString(data[:n]) + `"}`, data[n:]
	case 3:
		quoted, err := json.Marshal(string(data[:n]))
		must(t, err)
		return string(quoted), data[n:]
	case 4:
		text = list("[", "]", ",")
	case 5:
		text = list("{", "}", ":", ",")
	default:
		t.Fatalf("cbor of type %d", major)
	}
	return text, data
}

// itemReader is an answer of text/event-stream.
type itemReader struct {
	lines *bufio.Reader
}

// stream asks for text/event-stream with a token of the actor's, or with a ticket.
func (p *player) stream(actor, path string) []string {
	p.t.Helper()
	by := actor
	if strings.Contains(path, "ticket=") {
		by = "-"
	}
	r := p.request(by, http.MethodGet, path, "")
	r.Header.Set("Accept", "text/event-stream")
	ctx, cancel := context.WithTimeout(context.Background(), eventPatience)
	p.t.Cleanup(cancel)
	response, err := http.DefaultClient.Do(r.WithContext(ctx))
	must(p.t, err)
	if response.StatusCode != http.StatusOK {
		return []string{p.answer(response)}
	}
	p.t.Cleanup(func() { response.Body.Close() })
	p.streams[actor] = &itemReader{bufio.NewReader(response.Body)}
	return []string{"= " + headOf(response)}
}

// item shows the next item, its lines in one.
func (p *player) item(actor string) string {
	p.t.Helper()
	if p.streams[actor] == nil {
		p.t.Fatalf("%s follows nothing", actor)
	}
	var lines []string
	for {
		line, err := p.streams[actor].lines.ReadString('\n')
		switch line = strings.TrimSuffix(line, "\n"); {
		case errors.Is(err, io.EOF) && len(lines) == 0 && line == "":
			return "ended"
		case err != nil:
			p.t.Fatalf("%q, then %v", append(lines, line), err)
		case line != "":
			lines = append(lines, line)
		case strings.Join(lines, "") == ": alive": // on a slow machine
			lines = nil
		default:
			return strings.Join(lines, " ")
		}
	}
}
