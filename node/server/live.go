package server

import (
	"bufio"
	"fmt"
	"net"
	"time"
)

// liveTime is how long the server may take to answer itself.
const liveTime = 5 * time.Second

// Live says why the socket, if it is this server's, does not answer: all its connections may be stuck. It asks what no
// resolver has to answer.
func (s *Server) Live() error {
	if s.State() != Serving {
		return nil
	}
	conn, err := net.DialTimeout("unix", s.Socket, liveTime)
	if err != nil {
		return fmt.Errorf("the socket cannot be connected to: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(liveTime)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("{}\n")); err != nil {
		return fmt.Errorf("the socket takes no request: %w", err)
	}
	if _, err := bufio.NewReader(conn).ReadSlice('\n'); err != nil && err != bufio.ErrBufferFull {
		return fmt.Errorf("the socket gives no answer: %w", err)
	}
	return nil
}
