package hostlocal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzResolvConf: a file in the format of resolv.conf gives words of the file, and nothing else.
func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\nsearch a b\n# x\noptions ndots:2\ndomain d"))
	f.Add([]byte("nameserver\nsearch\x00 a\r\n\tnameserver  \u00a0x"))
	path := filepath.Join(f.TempDir(), "resolv.conf")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		dns, err := readResolvConf(path)
		if (err != nil) && len(content) <= maxResolvConf {
			t.Fatalf("%q: %v", content, err)
		}
		words := append(append(append(dns.Nameservers, dns.Search...), dns.Options...), dns.Domain)
		total := 0
		for _, word := range words {
			if total += len(word); strings.ContainsAny(word, " \t\n") || !strings.Contains(string(content), word) {
				t.Errorf("%q gives %q", content, word)
			}
		}
		if total > len(content) {
			t.Errorf("%d bytes of %d", total, len(content))
		}
	})
}

// Bounded, and no pipe is waited for.
func TestResolvConfIsBounded(t *testing.T) {
	dir := t.TempDir()
	path, pipe := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for size, ok := range map[int]bool{maxResolvConf: true, maxResolvConf + 1: false} {
		if err := os.WriteFile(path, []byte(strings.Repeat("#\n", size/2)+strings.Repeat("#", size%2)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readResolvConf(path); (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	for _, path := range []string{pipe, dir, "/dev/zero"} {
		if _, err := readResolvConf(path); err == nil {
			t.Errorf("%s is read", path)
		}
	}
}
