package lease

import "strings"

// maxDomains bounds how many domains of a server are used; what is more comes from no sane server.
const maxDomains = 32

// Domains returns the domain names that servers may hand to a pod. They end up in its resolv.conf, so whatever could
// mean something else there is left out, and so is the trailing dot.
func Domains(names ...string) (valid []string) {
	for _, name := range names {
		name = strings.TrimSuffix(strings.TrimRight(name, "\x00"), ".")
		if isDomain(name) && len(valid) < maxDomains {
			valid = Union(valid, []string{name})
		}
	}
	return valid
}

func isDomain(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, letters) != "" {
			return false
		}
	}
	return true
}

// letters of a domain name. The underscore is in none, and in many.
const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
