package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Kubeconfig writes a kubeconfig for a service account, with a token, that reaches the API server at url.
func (c *Cluster) Kubeconfig(namespace, serviceAccount, url string) string {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "kubeconfig")
	c.writeKubeconfig(path, url, map[string]string{"token": c.token(namespace, serviceAccount, "")})
	return path
}

// ClientKubeconfig writes a kubeconfig that authenticates with a client certificate, for a user of a group.
// CLIENT.crt and CLIENT.key lie beside the returned path; issue replaces them by those of another user.
func (c *Cluster) ClientKubeconfig(user, group, url string) (path string, issue func(user, group string)) {
	c.t.Helper()
	dir := c.t.TempDir()
	issue = func(user, group string) {
		c.pki.client(c.t, user, group)
		for _, ext := range []string{".crt", ".key"} {
			replace(c, c.pki.path(user+ext), filepath.Join(dir, "client"+ext))
		}
	}
	issue(user, group)
	path = filepath.Join(dir, "kubeconfig")
	c.writeKubeconfig(path, url, map[string]string{
		"client-certificate": filepath.Join(dir, "client.crt"), "client-key": filepath.Join(dir, "client.key"),
	})
	return path, issue
}

// replace puts the content of a file in the place of another.
func replace(c *Cluster, from, to string) {
	c.t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", content, 0o600)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// writeKubeconfig writes JSON, as braidd install does.
func (c *Cluster) writeKubeconfig(path, url string, user map[string]string) {
	c.t.Helper()
	type object map[string]any
	content, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"contexts": []object{{"name": "test", "context": object{"cluster": "test", "user": "braid"}}},
		"clusters": []object{{"name": "test", "cluster": object{"server": url, "certificate-authority": c.pki.path("ca.crt")}}},
		"users":    []object{{"name": "braid", "user": user}},
	})
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// token asks for a token of a service account, which is accepted as long as a secret exists, if one is named.
func (c *Cluster) token(namespace, serviceAccount, secret string) string {
	c.t.Helper()
	spec := map[string]any{}
	if secret != "" {
		spec["boundObjectRef"] = map[string]any{"apiVersion": "v1", "kind": "Secret", "name": secret}
	}
	var answer struct{ Status struct{ Token string } }
	c.Do(http.MethodPost, fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/%s/token", namespace, serviceAccount),
		map[string]any{"spec": spec}, &answer)
	return answer.Status.Token
}

// An Account is a service account whose token is in a file.
type Account struct {
	Kubeconfig string

	c               *Cluster
	namespace, name string
	tokenFile       string
	tokens          int
}

// NewAccount writes the kubeconfig of a service account, with the path of a token file.
func (c *Cluster) NewAccount(namespace, serviceAccount, url string) *Account {
	c.t.Helper()
	dir := c.t.TempDir()
	a := &Account{
		Kubeconfig: filepath.Join(dir, "kubeconfig"), c: c, namespace: namespace, name: serviceAccount, tokenFile: filepath.Join(dir, "token"),
	}
	a.issue()
	c.writeKubeconfig(a.Kubeconfig, url, map[string]string{"tokenFile": a.tokenFile})
	return a
}

// secret is what the latest token is bound to.
func (a *Account) secret() string { return fmt.Sprintf("token-%s-%d", a.name, a.tokens) }

// issue replaces the token file.
func (a *Account) issue() (token string) {
	a.c.t.Helper()
	a.tokens++
	a.c.Create(map[string]any{"kind": "Secret", "metadata": map[string]any{"namespace": a.namespace, "name": a.secret()}})
	token = a.c.token(a.namespace, a.name, a.secret())
	if err := os.WriteFile(a.tokenFile+".issued", []byte(token), 0o600); err != nil {
		a.c.t.Fatal(err)
	}
	replace(a.c, a.tokenFile+".issued", a.tokenFile)
	return token
}

// Rotate replaces the token, and then makes the API server refuse the old one.
func (a *Account) Rotate() {
	a.c.t.Helper()
	old, err := os.ReadFile(a.tokenFile)
	if err != nil {
		a.c.t.Fatal(err)
	}
	secret := a.secret()
	a.issue()
	a.c.Do(http.MethodDelete, fmt.Sprintf("/api/v1/namespaces/%s/secrets/%s", a.namespace, secret), nil, nil)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		req, err := http.NewRequest(http.MethodGet, a.c.URL+"/api/v1/namespaces/none/pods/none", nil)
		if err != nil {
			a.c.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(old)))
		resp, err := a.c.anonymous.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusUnauthorized {
				return
			}
		}
		if time.Now().After(deadline) {
			a.c.t.Fatalf("the API server still accepts a token that is bound to nothing: %v", err)
		}
	}
}

// Token returns a token of a service account.
func (c *Cluster) Token(namespace, serviceAccount string) string {
	c.t.Helper()
	return c.token(namespace, serviceAccount, "")
}
