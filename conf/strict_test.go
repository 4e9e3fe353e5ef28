package conf

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// fold is to agree with encoding/json on which keys are the same, for every letter that has another case.
func TestFoldAgreesWithEncodingJSON(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if unicode.SimpleFold(r) == r {
			continue
		}
		var decoded struct {
			K, S, Ω bool
		}
		object, err := json.Marshal(map[string]bool{string(r): true})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(object, &decoded); err != nil {
			t.Fatal(err)
		}
		for name, taken := range map[string]bool{"K": decoded.K, "S": decoded.S, "Ω": decoded.Ω} {
			if same := fold(string(r)) == fold(name); same != taken {
				t.Errorf("%q and %q: fold says %v, encoding/json says %v", r, name, same, taken)
			}
			if same := strings.EqualFold(string(r), name); same != taken {
				t.Errorf("%q and %q: EqualFold says %v, encoding/json says %v", r, name, same, taken)
			}
		}
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"clusterNetwork", "delegates", "binDir", "cniDir", "exec", "args"}
	for key, want := range map[string]string{
		"clusterNetwrok":         "clusterNetwork",
		"CLUSTERNETWORK":         "clusterNetwork",
		"delegate":               "delegates",
		"bindir":                 "binDir",
		"cni-dir":                "cniDir",
		"exce":                   "",
		"exc":                    "exec",
		"":                       "",
		"x":                      "",
		"example.org/x":          "",
		strings.Repeat("a", 999): "",
	} {
		if got := nearest(key, keys); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, test := range []struct {
		what  string
		valid func(string) bool
		yes   []string
		no    []string
	}{
		{"label", isLabel, []string{"a", "0", "a-0", long}, []string{"", "-", "-a", "a-", "A", "a.b", "a_b", "ä", long + "a"}},
		{
			"subdomain", isSubdomain,
			[]string{"a", "a.b", strings.Repeat(long+".", 3) + long[:61]},
			[]string{"", ".", "a.", ".a", "a..b", "a.-b", long + "a", strings.Repeat(long+".", 3) + long[:62]},
		},
		{"network", isNetworkName, []string{"a", "A_b.c-d", "0"}, []string{"", "-a", ".", "..", "_a", "a/b", "a b", "a\n"}},
		{
			"interface", isIfName,
			[]string{"net1", "eth0.100", "a@b", "abcdefghijklmno", "ärger"},
			[]string{"", ".", "..", "abcdefghijklmnop", "a/b", "a:b", "a b", "a\tb", "a\u00a0b", "a%d", "a\x1b", "a\x00", "all", "default", "\xff"},
		},
		{"file", isFileName, []string{"bridge", "host-local", "a.b", "..."}, []string{"", ".", "..", "a/b", "/a", `a\b`, "a\x00", "a\n", strings.Repeat("a", 256)}},
	} {
		for _, s := range test.yes {
			if !test.valid(s) {
				t.Errorf("%s %q is refused", test.what, s)
			}
		}
		for _, s := range test.no {
			if test.valid(s) {
				t.Errorf("%s %q is accepted", test.what, s)
			}
		}
	}
}
