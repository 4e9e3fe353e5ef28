package conf

import "strings"

// unknown complains about members that were not asked for, but for those with the prefix, if there is one.
func (o *object) unknown(prefix string) {
	for _, m := range o.members {
		if prefix != "" && strings.HasPrefix(m.key, prefix) || o.knows(m.key) {
			continue
		}
		if near := nearest(m.key, o.known); near != "" {
			o.addf("", "unknown key %s, did you mean %q?", quote(o.path+m.key), o.path+near)
		} else {
			o.addf("", "unknown key %s", quote(o.path+m.key))
		}
	}
}

// nearest returns the candidate that a key was probably meant to be, or nothing.
func nearest(key string, candidates []string) (near string) {
	if len(key) > 2*maxQuote {
		return ""
	}
	least := 1 + max(1, len(key)/3)
	for _, c := range candidates {
		if d := distance(fold(key), fold(c)); d < least {
			near, least = c, d
		}
	}
	return near
}

// distance is how many characters have to be changed, added or removed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // for each head of b, the distance from the head of a read so far
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
