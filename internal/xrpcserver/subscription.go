package xrpcserver

// registerSubscriptions makes the methods of subscriptions callable.
func (s *Server) registerSubscriptions() {}
