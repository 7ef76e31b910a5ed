package xrpcserver

// registerGroups makes the methods of groups callable.
func (s *Server) registerGroups() {}
