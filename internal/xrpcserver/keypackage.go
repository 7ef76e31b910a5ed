package xrpcserver

// registerKeyPackages makes the methods of keypackages callable.
func (s *Server) registerKeyPackages() {}
