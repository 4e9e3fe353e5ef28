package api

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/braid-cni/braid/conf"
)

// maxKubeconfig is in bytes. Clusters and users have a few lines each, but for certificates.
const maxKubeconfig = 1 << 20

// A plainCluster and a plainUser are what Login knows of those.
type plainCluster struct{ Server, CAFile, CA, ServerName string }

type plainUser struct{ Token, TokenFile, CertFile, Cert, KeyFile, Key string }

// current reads what the current context of a kubeconfig names. Where two say the same thing, client-go knows which one counts.
//
// JSON, as braidd install writes it, is read as it is: to read YAML takes more code, which is cold.
func current(kubeconfig []byte) (cluster plainCluster, user plainUser, err error) {
	if len(kubeconfig) > maxKubeconfig {
		return cluster, user, fmt.Errorf("%d bytes exceed the limit of %d", len(kubeconfig), maxKubeconfig)
	}
	var r reader
	if r.yaml = !json.Valid(kubeconfig); r.yaml {
		if kubeconfig, err = fromYAML(kubeconfig); err != nil {
			return cluster, user, err
		}
	}
	if err := conf.CheckJSON(kubeconfig, 2*maxKubeconfig); err != nil {
		return cluster, user, err
	}
	var document map[string]any
	if err := json.Unmarshal(kubeconfig, &document); err != nil {
		return cluster, user, err
	}
	r.known(document, "apiVersion", "kind", "preferences", "current-context", "contexts", "clusters", "users")
	r.text(document, "apiVersion")
	r.text(document, "kind")
	r.known(r.object(document, "preferences"))
	context := r.named(document, "contexts", "context", r.text(document, "current-context"))
	r.known(context, "cluster", "user", "namespace")
	r.text(context, "namespace")
	c := r.named(document, "clusters", "cluster", r.text(context, "cluster"))
	r.known(c, "server", "certificate-authority", "certificate-authority-data", "tls-server-name")
	cluster.Server, cluster.ServerName = r.text(c, "server"), r.text(c, "tls-server-name")
	cluster.CAFile, cluster.CA = r.either(c, "certificate-authority", "certificate-authority-data")
	u := r.named(document, "users", "user", r.text(context, "user"))
	r.known(u, "token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data")
	user.Token, user.TokenFile = r.either(u, "token", "tokenFile")
	user.CertFile, user.Cert = r.either(u, "client-certificate", "client-certificate-data")
	user.KeyFile, user.Key = r.either(u, "client-key", "client-key-data")
	return cluster, user, r.err
}

// A reader takes values of a document for what they should be, and keeps the first complaint, which tells no value: it may be a
// secret. There are no structs, since the tables that encoding/json makes of them would take each process longer than all else that
// is done with the document.
type reader struct {
	yaml bool // the document was YAML
	err  error
}

func (r *reader) complain(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// known complains about other keys.
func (r *reader) known(object map[string]any, keys ...string) {
	for key := range object {
		if !slices.Contains(keys, key) {
			r.complain("key %.80q is not known", key)
		}
	}
}

// object returns what an object has under a key, which is an object. Null is an empty one.
func (r *reader) object(in map[string]any, key string) map[string]any {
	value, ok := in[key].(map[string]any)
	if !ok && in[key] != nil {
		r.complain("%s is no object", key)
	}
	return value
}

// text returns a string. Null is an empty one.
func (r *reader) text(in map[string]any, key string) string {
	value, ok := in[key].(string)
	if !ok && in[key] != nil {
		r.complain("%s is no string", key)
	}
	if r.yaml && ambiguous(value) {
		r.complain("%s may be no string", key)
	}
	return value
}

// either returns two strings, of which one may be given.
func (r *reader) either(in map[string]any, a, b string) (string, string) {
	first, second := r.text(in, a), r.text(in, b)
	if first != "" && second != "" {
		r.complain("%s and %s are both given", a, b)
	}
	return first, second
}

// named returns the object that is under a key in the only element of a list with a name.
func (r *reader) named(in map[string]any, list, key, name string) (found map[string]any) {
	elements, ok := in[list].([]any)
	if !ok && in[list] != nil {
		r.complain("%s is no list", list)
	}
	n := 0
	for _, element := range elements {
		e, ok := element.(map[string]any)
		if !ok {
			r.complain("an element of %s is no object", list)
		}
		r.known(e, "name", key)
		if object := r.object(e, key); r.text(e, "name") == name {
			found = object
			n++
		}
	}
	if n != 1 {
		r.complain("%s has the name %.80q %d times", list, name, n)
	}
	return found
}
