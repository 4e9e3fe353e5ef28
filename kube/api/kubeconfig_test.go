package api

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

const tokenConfig = `apiVersion: v1
kind: Config
current-context: a
contexts:
- name: a
  context:
    cluster: a
    user: a
clusters:
- name: a
  cluster:
    server: https://192.0.2.1
users:
- name: a
  user:
    token: %s
`

// kubeconfigs are as programs write them; all are plain.
var kubeconfigs = []string{
	fmt.Sprintf(tokenConfig, "abc"),
	// kubeadm
	`apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: LS0tLS1CRUdJTg==
    server: https://192.0.2.1:6443
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: kubernetes-admin
  name: kubernetes-admin@kubernetes
current-context: kubernetes-admin@kubernetes
kind: Config
preferences: {}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: LS0tLS1CRUdJTg==
    client-key-data: LS0tLS1CRUdJTg==
`,
	// the kubelet's, of kubeadm
	`apiVersion: v1
clusters: [{cluster: {certificate-authority: /etc/kubernetes/pki/ca.crt, server: "https://[2001:db8::1]:6443"}, name: default-cluster}]
contexts: [{context: {cluster: default-cluster, namespace: default, user: default-auth}, name: default-context}]
current-context: default-context
kind: Config
users:
- name: default-auth
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem
`,
	// Multus
	`# Kubeconfig file for Multus CNI plugin.
apiVersion: v1
kind: Config
clusters:
- name: local
  cluster:
    server: https://10.96.0.1:443
    certificate-authority-data: LS0tLS1CRUdJTg==
users:
- name: multus
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
contexts:
- name: multus-context
  context:
    cluster: local
    user: multus
current-context: multus-context
`,
	// Calico
	`# Kubeconfig file for Calico CNI plugin. Installed by calico/node.
apiVersion: v1
kind: Config
clusters:
- name: local
  cluster:
    server: https://10.96.0.1:443
    certificate-authority-data: "LS0tLS1CRUdJTg=="
users:
- name: calico
  user:
    token: eyJhbGciOiJSUzI1NiIsImtpZCI6IiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2ln_bmF0-dXJl
contexts:
- name: calico-context
  context:
    cluster: local
    user: calico
current-context: calico-context
`,
}

// byClientGo is current as client-go has it.
func byClientGo(kubeconfig []byte) (cluster plainCluster, user plainUser, err error) {
	c, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return cluster, user, err
	}
	context := c.Contexts[c.CurrentContext]
	if context == nil || c.Clusters[context.Cluster] == nil || c.AuthInfos[context.AuthInfo] == nil {
		return cluster, user, fmt.Errorf("no context %q", c.CurrentContext)
	}
	s, u := c.Clusters[context.Cluster], c.AuthInfos[context.AuthInfo]
	return plainCluster{s.Server, s.CertificateAuthority, string(s.CertificateAuthorityData), s.TLSServerName},
		plainUser{u.Token, u.TokenFile, u.ClientCertificate, string(u.ClientCertificateData), u.ClientKey, string(u.ClientKeyData)}, nil
}

// decoded is what client-go has of a plain kubeconfig.
func decoded(c plainCluster, u plainUser) (plainCluster, plainUser) {
	for _, data := range []*string{&c.CA, &u.Cert, &u.Key} {
		if b, err := folder("").read("", *data); err == nil {
			*data = string(b)
		}
	}
	return c, u
}

// What is plain is what client-go takes it for.
func FuzzKubeconfig(f *testing.F) {
	for _, text := range kubeconfigs {
		if _, _, err := current([]byte(text)); err != nil {
			f.Errorf("%s\nis not plain: %v", text, err)
		}
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cluster, user, err := current(text)
		if err != nil {
			return
		}
		cluster, user = decoded(cluster, user)
		wantCluster, wantUser, err := byClientGo(text)
		if err == nil && (cluster != wantCluster || user != wantUser) {
			t.Errorf("%q: found %+v, %+v, want %+v, %+v", text, cluster, user, wantCluster, wantUser)
		}
	})
}

// TestUnusualYAML: what two readers of YAML may take for different things is left to client-go, and so is what is too much for one.
func TestUnusualYAML(t *testing.T) {
	for _, token := range []string{
		"no", "Yes", "on", "y", "N", "17", "0x1f", "0o17", "017", "08", "1_000", "1e3", "-2E+05", ".5", "+.inf", ".nan", "123456789012345678901234567890",
		"!!null a", "!!str 17", "!!binary YWJj", "&a b", "*a", `"a\/b"`, `"a\x41"`, `"\ud83d\ude00"`, "%a", "a\tb", "a\u0085b", "a\u2028b", "é", "\xff",
		"a\n    token: b", "a\n    <<: {tokenFile: x}", "a\n    ? tokenFile\n    : b", "a\n...\nb", "a\r\n",
		"|\n      a", "|-\n      a: ", ">-\n      a \n", "a\n      - #b", "a\n\n\n      b",
	} {
		text := fmt.Appendf(nil, tokenConfig, token)
		if _, user, err := current(text); err == nil {
			_, want, err := byClientGo(text)
			t.Errorf("token: %q: found %q; client-go has %q, %v", token, user.Token, want.Token, err)
		}
	}
	aliases := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'z'; c++ {
		aliases += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 9))
	}
	var keys strings.Builder
	for i := range 40000 {
		fmt.Fprintf(&keys, "k%d: v\n", i)
	}
	const tooDeep, tooMany = "YAML with more than 16 brackets within each other, or 40 columns of indentation", "exceed the limit of 65536"
	for name, tt := range map[string]struct{ text, want string }{
		"aliases": {aliases, "YAML with '&'"}, "merge keys": {"a: &a {<<: *a}", "YAML with '&'"}, "itself": {"a: &a [*a]", "YAML with '&'"},
		"keys":  {keys.String(), tooMany},
		"lists": {"a: " + strings.Repeat("[", 17) + strings.Repeat("]", 17), tooDeep}, "many lists": {"a: " + strings.Repeat("[", 100000), tooMany},
		"objects": {strings.Repeat("{a: ", 17) + strings.Repeat("}", 17), tooDeep}, "many objects": {strings.Repeat("{a: ", 100000), tooMany},
		"lists by indentation": {strings.Repeat("- ", 21), tooDeep}, "keys within each other": {strings.Repeat("? ", 10), "YAML with '?'"},
	} {
		if _, _, err := current([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: found error %v, want %s", name, err, tt.want)
		}
	}
}

// TestNoSecretInComplaint: a complaint is in events and logs.
func TestNoSecretInComplaint(t *testing.T) {
	for _, token := range []string{"hush\n    token: hush", "hush: hush", "[hush", "'hush", "hush\n   }", "hush\n  hush", "{hush: hush}", "&hush", "\"\\hush\""} {
		for _, text := range []string{fmt.Sprintf(tokenConfig, token), fmt.Sprintf("users: [{name: a, user: {token: %s", token)} {
			if _, _, err := current([]byte(text)); err == nil || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "\n") {
				t.Errorf("token: %q: found error %v, want one line that does not tell it", token, err)
			}
		}
	}
}
