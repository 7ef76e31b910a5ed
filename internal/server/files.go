package server

// openFilesWanted is the number of files and sockets below which an operator is warned at
// start. Each connection is one; some systems let a process have 1 024.
const openFilesWanted = 8192

// warnOfFewFiles logs a low limit of open files, which bounds the connections.
func (s *Server) warnOfFewFiles() {
	if most := openFilesMax(); most > 0 && most < openFilesWanted {
		s.logger.Warn("the process may have few files open, and each connection is one: raise its limit (ulimit -n, LimitNOFILE)", "open_files_max", most)
	}
}
