package drive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

const opsBytesMax = 8 << 20

// Ops reads what a server tells its operator, at the address of its ops listener.
type Ops struct{ URL string } // http://HOST:PORT

// Get returns the status and the text of an answer.
func (o Ops) Get(ctx context.Context, path string) (status int, text string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.URL+path, nil)
	if err != nil {
		return 0, "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, opsBytesMax))
	return answer.StatusCode, string(body), err
}

// Metrics are the values of a scrape, by series: a name, with its labels in braces if there are
// some.
type Metrics map[string]float64

// Metrics scrapes the server.
func (o Ops) Metrics(ctx context.Context) (Metrics, error) {
	status, text, err := o.Get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("/metrics: status %d", status)
	}
	metrics := Metrics{}
	for line := range strings.Lines(text) {
		end := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || end < 0 {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[end+1:]), 64)
		if err != nil {
			return nil, fmt.Errorf("/metrics: %w", err)
		}
		metrics[line[:end]] = value
	}
	return metrics, nil
}

// Sum adds up the series of a metric that have all of the labels, each as name="value". has
// reports whether there is one.
func (m Metrics) Sum(name string, labels ...string) (sum float64, has bool) {
series:
	for series, value := range m {
		own, rest, _ := strings.Cut(series, "{")
		if own != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains("{"+rest, "{"+label) && !strings.Contains(rest, ","+label) {
				continue series
			}
		}
		sum, has = sum+value, true
	}
	return sum, has
}

var heapAlloc = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)

// LiveHeap returns the bytes of the server's heap that are in use after collections, which it
// forces: two, since what pools of buffers hold goes with the second one.
func (o Ops) LiveHeap(ctx context.Context) (int64, error) {
	var profile string
	for range 2 {
		var err error
		if _, profile, err = o.Get(ctx, "/debug/pprof/heap?gc=1&debug=1"); err != nil {
			return 0, err
		}
	}
	found := heapAlloc.FindStringSubmatch(profile)
	if found == nil {
		return 0, errors.New("no HeapAlloc in the heap's profile")
	}
	return strconv.ParseInt(found[1], 10, 64)
}
