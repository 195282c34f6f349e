{{/* What picks the pods of a workload out of all: it can't be changed once a Deployment has it. */}}
{{- define "stoa-service.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/part-of: stoa
{{- end }}

{{/* `app` and `version` are what a mesh's telemetry and routing go by. */}}
{{- define "stoa-service.labels" -}}
{{- $image := .Values.image | default dict -}}
{{- $version := $image.tag | default .Chart.AppVersion | quote -}}
{{ include "stoa-service.selector" . }}
app.kubernetes.io/version: {{ $version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app: {{ .Chart.Name }}
version: {{ $version }}
{{- end }}

{{- define "stoa-service.metadata" -}}
name: {{ .Chart.Name }}
labels: {{- include "stoa-service.labels" . | nindent 2 }}
{{- end }}

{{/* By digest where the release names one: a tag may be moved. */}}
{{- define "stoa-service.image" -}}
{{- with .Values.image -}}
{{ .registry }}/{{ $.Chart.Name }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* What the identities of the release's workloads begin with. */}}
{{- define "stoa-service.identities" -}}
spiffe://{{ .Values.global.mesh.trustDomain }}/ns/{{ .Release.Namespace }}/sa/
{{- end }}

{{/* host:port of a part of the infrastructure, if the release says where it is: list CONTEXT NAME. */}}
{{- define "stoa-service.address" -}}
{{- $part := get (first .).Values.global.infrastructure (last .) | default dict -}}
{{- if $part.host }}{{ $part.host }}:{{ $part.port }}{{ end }}
{{- end }}
