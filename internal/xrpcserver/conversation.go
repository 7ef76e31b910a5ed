package xrpcserver

// registerConversations makes the methods of conversations callable.
func (s *Server) registerConversations() {}
