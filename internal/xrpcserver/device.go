package xrpcserver

// registerDevices makes the methods of devices callable.
func (s *Server) registerDevices() {}
