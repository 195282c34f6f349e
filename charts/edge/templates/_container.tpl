{{- define "edge.container" -}}
args:
  - --host={{ ternary "127.0.0.1" "0.0.0.0" .Values.global.mesh.enabled }}
  - --port={{ .port.number }}
  {{- range .Values.calls }}
  - --upstream={{ . }}={{ . }}:9000
  {{- end }}
  {{- if .Values.global.mesh.enabled }}
  - --sidecar
  {{- else }}
  - --tls-dir=/var/run/stoa/tls
  - --spiffe-prefix={{ include "stoa-service.identities" . }}
  {{- end }}
  - --trusted-hops={{ .Values.trustedHops }}
  {{- range .Values.corsOrigins }}
  - --cors-origin={{ . }}
  {{- end }}
  {{- if not .Values.rateLimits }}
  - --no-rate-limits
  {{- end }}
  {{- with .Values.traceEndpoint }}
  - --trace-endpoint={{ . }}
  {{- end }}
ports:
  - {name: {{ .port.name }}, containerPort: {{ .port.number }}}
startupProbe:
  httpGet: {path: /healthz, port: {{ .port.name }}}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: {{ .port.name }}}
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  httpGet: {path: /healthz, port: {{ .port.name }}}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{/* What leads into the shop, and the shop's own pods, for the keys that tokens are checked by. */}}
{{- define "edge.callers" -}}
{{ toYaml .Values.global.network.ingress }}
- {podSelector: {matchLabels: {app.kubernetes.io/part-of: stoa}}}
{{- end }}
