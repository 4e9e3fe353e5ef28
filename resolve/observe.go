package resolve

import (
	"fmt"
	"syscall"
)

// Observe tells the daemon at a socket what a call of the runtime took. It waits for nothing, not even for room in the
// backlog, and reports only that there is nobody to tell.
func Observe(socket string, o *Observation) error {
	conn, err := connect(socket)
	if err == nil {
		defer syscall.Close(conn)
		err = o.send(conn)
	}
	if err != nil {
		return fmt.Errorf("tell the daemon at %s: %w", socket, err)
	}
	return nil
}

// send encodes what is told, which is not done for nobody.
func (o *Observation) send(conn int) error {
	line, err := marshalLine(&request{Observe: o}, maxRequest)
	if err != nil {
		return errorf(Invalid, "encode request: %v", err)
	}
	n, err := syscall.SendmsgN(conn, line, nil, nil, syscall.MSG_NOSIGNAL)
	if err == nil && n < len(line) {
		err = fmt.Errorf("it took %d of %d bytes", n, len(line))
	}
	return err
}
