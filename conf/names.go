package conf

import (
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/utils"
)

// What the names have to look like, in the words of error messages.
const (
	wantLabel     = "a DNS-1123 label: up to 63 lower-case letters, digits and hyphens, no hyphen at an end"
	wantSubdomain = "a DNS-1123 subdomain: DNS-1123 labels (lower-case letters, digits and hyphens) with dots between them"
	wantNetwork   = "a letter or digit, followed by letters, digits, underscores, dots or hyphens"
	wantIfName    = `up to 15 bytes without blanks, control characters, '/', ':' and '%', other than ".", "..", "all" and "default"`
	wantType      = "the name of a plugin's file, without a path"
)

// isLabel tells if s is a DNS-1123 label.
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// isSubdomain tells if s is a DNS-1123 subdomain, which is what the API server accepts as the name of an object. Unlike
// there, each part is a label. The Network CRD standard wants objects named by "units of the DNS-1123 label format" and
// recommends "that each unit of DNS-1123 label be 63 characters or less".
func isSubdomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

// IsPod tells if a pod can have the names: a namespace's is a label, a pod's a subdomain whose parts may be longer than labels.
func IsPod(namespace, name string) bool {
	isPart := func(s string) bool {
		return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[0] != '-' && s[len(s)-1] != '-'
	}
	valid := isLabel(namespace) && len(name) <= 253
	for part := range strings.SplitSeq(name, ".") {
		valid = valid && isPart(part)
	}
	return valid
}

// isNetworkName keeps "Must start with an alphanumeric character, optionally followed by any combination of one or more
// alphanumeric characters, underscore, dot (.) or hyphen (-). Must not contain characters disallowed in file paths."
func isNetworkName(s string) bool { return len(s) <= 253 && utils.ValidateNetworkName(s) == nil }

// isIfName keeps the rules of the kernel: those of dev_valid_name, no '%', which asks for a number to be filled in, and
// not the names that net/ipv4/conf has for other things. Control characters, which the kernel allows, are refused.
func isIfName(s string) bool {
	return utils.ValidateInterfaceName(s) == nil && s != "all" && s != "default" &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == '%' || unicode.IsControl(r) || r == unicode.ReplacementChar })
}

// isFileName keeps, of a plugin's type, "Must not contain characters disallowed in file paths for the system (e.g. / or
// \)", and refuses the names that stand for a directory.
func isFileName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == '/' || r == '\\' || unicode.IsControl(r) })
}
