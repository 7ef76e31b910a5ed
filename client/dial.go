//go:build !js

package client

import (
	"context"
	"net/http"

	"github.com/coder/websocket"
)

// dialWebSocket opens a WebSocket with an HTTP client.
func dialWebSocket(ctx context.Context, address string, by *http.Client) (*websocket.Conn, error) {
	conn, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{HTTPClient: by})
	return conn, err
}
