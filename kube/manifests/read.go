// Package manifests takes pods and NetworkAttachmentDefinitions from a folder of YAML files, for a node without an API
// server: demonstrations, tests, podman, nerdctl. It is the same as package kube is for an API server, down to the file
// that stands for a pod's network-status annotation.
package manifests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	strictjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Objects are what a folder holds.
type Objects struct {
	Pods     []*corev1.Pod
	Networks []*netv1.NetworkAttachmentDefinition
}

// Read reads the files *.yaml, *.yml and *.json of a folder; folders in it, and files with a leading dot, are left alone.
// A file holds any number of documents, and a document of kind List any number of objects. Objects without a namespace
// are in "default". Other kinds than Pod and NetworkAttachmentDefinition are ignored.
//
// The errors of all files are returned at once. Each names the file, the line of the document or of the mistake, and the
// field. Errors are unknown and duplicate fields too, a kind with the wrong apiVersion, and an object that is there twice.
func Read(dir string) (*Objects, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	r := reader{seen: make(map[string]string)}
	for _, entry := range entries {
		name := entry.Name()
		ext := filepath.Ext(name)
		if strings.HasPrefix(name, ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			continue
		}
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); err == nil && fi.IsDir() {
			continue
		}
		if err := r.readFile(path); err != nil {
			r.errs = append(r.errs, err)
		}
	}
	return &r.objects, errors.Join(r.errs...)
}

// A reader collects objects and errors.
type reader struct {
	objects Objects
	seen    map[string]string // kind, namespace and name: where
	errs    []error
}

// readFile reads all documents of a file. A syntax error ends it, since what follows could mean anything.
func (r *reader) readFile(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	split := splitYAML
	if filepath.Ext(path) == ".json" {
		split = splitJSON
	}
	docs, err := split(data)
	for _, d := range docs {
		where := fmt.Sprintf("%s, document at line %d", path, d.line)
		r.add(where, d.json)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// A document, and the line that it begins at.
type document struct {
	json []byte
	line int
}

func splitYAML(data []byte) (docs []document, err error) {
	for _, d := range yamlDocuments(data) {
		// Empty lines for what comes before, so that the line numbers in errors are those of the file.
		doc, err := yaml.YAMLToJSONStrict(append(bytes.Repeat([]byte{'\n'}, d.line-1), d.yaml...))
		if err != nil {
			return docs, err
		}
		if !bytes.Equal(doc, []byte("null")) {
			docs = append(docs, document{doc, d.line})
		}
	}
	return docs, nil
}

type yamlDocument struct {
	yaml []byte
	line int
}

// yamlDocuments cuts at the lines that begin with the marker "---".
func yamlDocuments(data []byte) []yamlDocument {
	docs := []yamlDocument{{line: 1}}
	line := 1
	for text := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(text, []byte("---")); ok && (len(rest) == 0 || strings.ContainsRune(" \t\r\n", rune(rest[0]))) {
			docs = append(docs, yamlDocument{line: line})
		}
		last := &docs[len(docs)-1]
		last.yaml = append(last.yaml, text...)
		line++
	}
	return docs
}

func splitJSON(data []byte) (docs []document, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	for {
		var doc json.RawMessage
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return docs, nil
		case err != nil:
			end := int64(len(data))
			if e, ok := errors.AsType[*json.SyntaxError](err); ok {
				end = e.Offset
			}
			return docs, fmt.Errorf("line %d: %w", lineAt(data, end), err)
		}
		docs = append(docs, document{doc, lineAt(data, d.InputOffset()-int64(len(doc)))})
	}
}

func lineAt(data []byte, offset int64) int { return 1 + bytes.Count(data[:offset], []byte{'\n'}) }

// add takes an object, or all objects of a list.
func (r *reader) add(where string, doc []byte) {
	fail := func(err error) {
		if err != nil {
			r.errs = append(r.errs, fmt.Errorf("%s: %w", where, err))
		}
	}
	var head struct {
		metav1.TypeMeta `json:",inline"`
		Items           []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		fail(fmt.Errorf("not a Kubernetes object: %w", err))
		return
	}
	switch head.Kind {
	case "":
		fail(errors.New("kind: found none, want Pod, NetworkAttachmentDefinition or another"))
	case "List":
		for i, item := range head.Items {
			r.add(fmt.Sprintf("%s, items[%d]", where, i), item)
		}
	case "Pod":
		pod := &corev1.Pod{}
		fail(r.decode(where, doc, head.TypeMeta, "v1", pod))
		r.objects.Pods = append(r.objects.Pods, pod)
	case "NetworkAttachmentDefinition":
		network := &netv1.NetworkAttachmentDefinition{}
		fail(r.decode(where, doc, head.TypeMeta, netv1.SchemeGroupVersion.String(), network))
		r.objects.Networks = append(r.objects.Networks, network)
	}
}

// decode reads an object, and enters it into the register of those seen.
func (r *reader) decode(where string, doc []byte, is metav1.TypeMeta, apiVersion string, into metav1.Object) error {
	if is.APIVersion != apiVersion {
		return fmt.Errorf("apiVersion: found %q, want %q for kind %s", is.APIVersion, apiVersion, is.Kind)
	}
	strict, err := strictjson.UnmarshalStrict(doc, into)
	if err := errors.Join(append(strict, err)...); err != nil {
		return err
	}
	if wrong := validation.IsDNS1123Subdomain(into.GetName()); len(wrong) > 0 {
		return fmt.Errorf("metadata.name: found %q: %s", into.GetName(), wrong[0])
	}
	if into.GetNamespace() == "" {
		into.SetNamespace(metav1.NamespaceDefault)
	}
	if wrong := validation.IsDNS1123Label(into.GetNamespace()); len(wrong) > 0 {
		return fmt.Errorf("metadata.namespace: found %q: %s", into.GetNamespace(), wrong[0])
	}
	key := is.Kind + " " + into.GetNamespace() + "/" + into.GetName()
	if first, twice := r.seen[key]; twice {
		return fmt.Errorf("%s is there twice: first in %s", key, first)
	}
	r.seen[key] = where
	return nil
}
