package client

import (
	"context"
	"net/http"

	"github.com/coder/websocket"
)

// dialWebSocket opens a WebSocket of the browser, which makes its own connections.
func dialWebSocket(ctx context.Context, address string, _ *http.Client) (*websocket.Conn, error) {
	conn, _, err := websocket.Dial(ctx, address, nil)
	return conn, err
}
