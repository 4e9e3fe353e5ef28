package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/program"
)

// become replaces this process by braid. A file that somebody still writes is waited for: a runtime would do so, and does not see it.
func become(braid string, environ []string) {
	err := unix.Exec(braid, []string{braid}, environ)
	for try := 1; errors.Is(err, unix.ETXTBSY) && try < program.BusyTries; try++ {
		time.Sleep(program.BusyRetry)
		err = unix.Exec(braid, []string{braid}, environ)
	}
	fail("execute "+braid, err, "braid-shim does nothing without it: run \"braidd install\", or put braid, of the same version, beside braid-shim")
}

// giveStdin makes what has been read standard input again.
func giveStdin(stdin []byte) error {
	fd, err := memfd()
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "stdin")
	defer f.Close()
	if _, err := f.WriteAt(stdin, 0); err != nil {
		return err
	}
	return unix.Dup3(fd, 0, 0)
}

// memfd makes a file that nobody can execute: with vm.memfd_noexec=2 some kernels give no other.
func memfd() (fd int, err error) {
	fd, err = unix.MemfdCreate("stdin", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("stdin", unix.MFD_CLOEXEC)
	}
	return fd, err
}

// fail answers as a CNI plugin that cannot work, and ends the process.
//
// "50: The plugin is not available (i.e. cannot service ADD requests)"
func fail(what string, err error, remedy string) {
	printAll(1, fmt.Sprintf("{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 50,\n    \"msg\": %s\n}\n", quote("cannot "+what+": "+err.Error()+"; "+remedy)))
	os.Exit(1)
}

// quote makes a JSON string of text for people.
func quote(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}
