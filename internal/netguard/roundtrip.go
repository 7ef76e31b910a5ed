package netguard

import (
	"io"
	"net/http"
	"strings"
)

// roundTripper carries out one exchange, and checks both the request and the answer.
type roundTripper struct {
	guard     *Guard
	bodyBytes int64
}

// RoundTrip implements http.RoundTripper.
func (r *roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.exchange(request)
	if err != nil {
		if request.Body != nil {
			request.Body.Close() // the contract of a RoundTripper; closing twice does no harm
		}
		return nil, r.guard.count(err)
	}
	return response, nil
}

func (r *roundTripper) exchange(request *http.Request) (*http.Response, error) {
	if err := r.guard.checkURL(request.URL); err != nil {
		return nil, err
	}
	transport := r.guard.https
	if request.URL.Scheme == "http" {
		transport = r.guard.loopback // checkURL permits http only if this is set
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	var refused *Refused
	encoding := response.Header.Get("Content-Encoding")
	switch status := response.StatusCode; {
	case status >= 300 && status < 400 && status != http.StatusNotModified:
		refused = &Refused{Reason: ReasonRedirect}
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		refused = &Refused{Reason: ReasonEncoding} // not requested; it may decompress to any size
	case response.ContentLength > r.bodyBytes:
		refused = &Refused{Reason: ReasonTooLong}
	}
	if refused != nil {
		response.Body.Close()
		return nil, refused
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		response.Body = &boundedBody{response.Body, r.guard, r.bodyBytes}
	}
	return response, nil
}

// boundedBody is a body that fails when it becomes too long, instead of ending as if it were
// complete.
type boundedBody struct {
	io.ReadCloser
	guard *Guard
	left  int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, &Refused{Reason: ReasonTooLong}
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) <= b.left {
		b.left -= int64(n)
		return n, err
	}
	n = int(b.left)
	b.left = -1
	return n, b.guard.count(&Refused{Reason: ReasonTooLong})
}
