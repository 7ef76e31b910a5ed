package hostile

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// NameServer answers questions about names on this machine only, so that the internet is not
// asked. Each name has a list of answers, given in turn; the last one stays. It is safe for
// concurrent use.
type NameServer struct {
	conn    net.PacketConn
	mu      sync.Mutex // guards answers and asked
	answers map[string][][]netip.Addr
	asked   map[string]int
}

// NewNameServer starts a name server on a free port of this machine. close ends it.
func NewNameServer() (s *NameServer, close func(), err error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	s = &NameServer{conn: conn, answers: map[string][][]netip.Addr{}, asked: map[string]int{}}
	var done sync.WaitGroup
	done.Go(s.serve)
	return s, func() {
		conn.Close()
		done.Wait()
	}, nil
}

// Address returns HOST:PORT.
func (s *NameServer) Address() string { return s.conn.LocalAddr().String() }

// Set sets the answers for a name: one text of addresses after the other.
func (s *NameServer) Set(name string, answers ...string) {
	var all [][]netip.Addr
	for _, text := range answers {
		var list []netip.Addr
		for word := range strings.FieldsSeq(text) {
			list = append(list, netip.MustParseAddr(word))
		}
		all = append(all, list)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[name+"."] = all
}

// next returns the answer to a question. A and AAAA are asked together, so the turn is counted by
// the questions of each kind.
func (s *NameServer) next(name string, kind uint16) (list []netip.Addr, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, known := s.answers[strings.ToLower(name)]
	if !known || len(all) == 0 {
		return nil, known
	}
	key := name + string(rune(kind))
	turn := min(s.asked[key], len(all)-1)
	s.asked[key]++
	return all[turn], true
}

const typeA, typeAAAA = 1, 28

func (s *NameServer) serve() {
	packet := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(packet)
		if err != nil {
			return
		}
		if answer := s.answer(packet[:n]); answer != nil {
			_, _ = s.conn.WriteTo(answer, from)
		}
	}
}

// answer makes a response (RFC 1035, section 4) to a query with one question.
func (s *NameServer) answer(query []byte) []byte {
	if len(query) < 12 {
		return nil
	}
	var name strings.Builder
	at := 12
	for at < len(query) && query[at] != 0 {
		end := at + 1 + int(query[at])
		if end > len(query) {
			return nil
		}
		name.Write(query[at+1 : end])
		name.WriteByte('.')
		at = end
	}
	if at+5 > len(query) {
		return nil
	}
	question := query[12 : at+5]
	kind := binary.BigEndian.Uint16(query[at+1:])
	list, known := s.next(name.String(), kind)
	var records []byte
	count := 0
	for _, address := range list {
		if address.Is4() != (kind == typeA) || kind != typeA && kind != typeAAAA {
			continue
		}
		data := address.AsSlice()
		records = append(records, 0xc0, 12) // the name of the question
		records = binary.BigEndian.AppendUint16(records, kind)
		records = append(records, 0, 1, 0, 0, 0, 0) // class IN, not to be kept
		records = binary.BigEndian.AppendUint16(records, uint16(len(data)))
		records = append(records, data...)
		count++
	}
	flags := uint16(0x8180)
	if !known {
		flags |= 3 // no such name
	}
	header := binary.BigEndian.AppendUint16(append([]byte{}, query[:2]...), flags)
	for _, n := range []int{1, count, 0, 0} {
		header = binary.BigEndian.AppendUint16(header, uint16(n))
	}
	return append(append(header, question...), records...)
}
