package xrpcserver

// registerMessages makes the methods of messages callable.
func (s *Server) registerMessages() {}
