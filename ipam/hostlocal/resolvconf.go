package hostlocal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

const maxResolvConf = 64 << 10 // bytes

// readResolvConf reads what a file in the format of resolv.conf(5) says of name servers.
func readResolvConf(path string) (dns types.DNS, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read ipam.resolvConf: %w", err)
		}
	}()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // it does not wait for a pipe's other end
	if err != nil {
		return dns, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return dns, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxResolvConf {
		return dns, errors.New(path + " is no file of 64 KiB at most")
	}
	lines := bufio.NewScanner(io.LimitReader(f, maxResolvConf))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, fields[1])
		case "domain":
			dns.Domain = fields[1]
		case "search":
			dns.Search = append(dns.Search, fields[1:]...)
		case "options":
			dns.Options = append(dns.Options, fields[1:]...)
		}
	}
	return dns, lines.Err()
}
