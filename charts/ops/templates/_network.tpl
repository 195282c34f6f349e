{{/*
Nobody calls an operator's tools; they look at everything that services need, and at their metrics, and what rebuilds as a
service calls those that the service calls.
*/}}
{{- define "ops.network" -}}
{{- $network := .Values.global.network -}}
{{- if $network.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels: {{- include "stoa-service.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  egress:
    {{- include "stoa-service.network.common" . | nindent 4 }}
    - ports: [{port: 9000}, {port: 9100}]
      to: [{podSelector: {matchLabels: {app.kubernetes.io/part-of: stoa}}}]
    {{- range .Values.global.infrastructure }}
    - ports: [{port: {{ .port }}}]
      to: {{- toYaml .peers | nindent 8 }}
    {{- end }}
{{- end }}
{{- end }}

{{/* What has no policy of its own in the shop's namespace connects to nothing, and nothing to it. */}}
{{- define "ops.default-deny" -}}
{{- if .Values.global.network.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: default-deny
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
{{- end }}
{{- end }}
