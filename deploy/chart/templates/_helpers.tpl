{{/* What distributions have elsewhere than the usual folders. */}}
{{- define "braid.distribution" -}}
{{- $usual := dict "cniBinDir" "/opt/cni/bin" "cniConfDir" "/etc/cni/net.d" "clusterNetwork" "auto" -}}
{{- $others := dict
  "" (dict)
  "rke2" (dict)
  "talos" (dict)
  "k3s" (dict "cniBinDir" "/var/lib/rancher/k3s/data/cni" "cniConfDir" "/var/lib/rancher/k3s/agent/etc/cni/net.d")
  "openshift" (dict "cniBinDir" "/var/lib/cni/bin" "cniConfDir" "/etc/kubernetes/cni/net.d" "clusterNetwork" "/run/multus/cni/net.d/10-ovn-kubernetes.conf")
  "microk8s" (dict "cniBinDir" "/var/snap/microk8s/current/opt/cni/bin" "cniConfDir" "/var/snap/microk8s/current/args/cni-network")
-}}
{{- if not (hasKey $others .Values.distribution) -}}
{{- fail (printf "distribution: found %q, want one of k3s, rke2, talos, openshift, microk8s, or nothing" .Values.distribution) -}}
{{- end -}}
{{- $given := dict -}}
{{- range $key := list "cniBinDir" "cniConfDir" "clusterNetwork" -}}
{{- with index $.Values $key -}}{{- $_ := set $given $key . -}}{{- end -}}
{{- end -}}
{{- merge $given (index $others .Values.distribution) $usual | toJson -}}
{{- end -}}

{{- define "braid.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "braid.labels" -}}
app.kubernetes.io/name: braid
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{/* Where the API server is, unless the service IP does: for clients that look into the environment. */}}
{{- define "braid.apiServer" -}}
{{- with .Values.apiServer }}
{{- $parts := regexFindAll "^(.*):([0-9]+)$" . 1 }}
{{- if not $parts }}{{ fail (printf "apiServer: found %q, want HOST:PORT" .) }}{{ end }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ regexReplaceAll "^\\[?(.*?)\\]?:([0-9]+)$" . "${1}" | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ regexReplaceAll "^(.*):([0-9]+)$" . "${2}" | quote }}
{{- end }}
{{- end -}}

{{/* Folders of the node, each at the same path in the container. */}}
{{- define "braid.folders" -}}
{{- $d := include "braid.distribution" . | fromJson -}}
{{- $folders := list
  (dict "name" "cni-bin" "path" $d.cniBinDir)
  (dict "name" "cni-conf" "path" $d.cniConfDir)
  (dict "name" "networks" "path" .Values.networksDir)
  (dict "name" "cni-state" "path" (dir .Values.cniDir))
-}}
{{- if and (hasPrefix "/" $d.clusterNetwork) (ne (dir $d.clusterNetwork) $d.cniConfDir) (ne (dir $d.clusterNetwork) .Values.networksDir) -}}
{{- $folders = append $folders (dict "name" "cluster-network" "path" (dir $d.clusterNetwork)) -}}
{{- end -}}
{{- dict "folders" $folders | toJson -}}
{{- end -}}

{{- define "braid.folderMounts" -}}
{{- range (include "braid.folders" . | fromJson).folders }}
- name: {{ .name }}
  mountPath: {{ .path }}
{{- end }}
{{- end -}}

{{- define "braid.folderVolumes" -}}
{{- range (include "braid.folders" . | fromJson).folders }}
- name: {{ .name }}
  hostPath:
    path: {{ .path }}
    type: DirectoryOrCreate
{{- end }}
{{- end -}}

{{- define "braid.scheduling" -}}
hostNetwork: true
priorityClassName: {{ .Values.priorityClassName }}
tolerations:
  {{- toYaml .Values.tolerations | nindent 2 }}
nodeSelector:
  {{- toYaml (merge (deepCopy .Values.nodeSelector) (dict "kubernetes.io/os" "linux")) | nindent 2 }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
