{{/*
Who may connect, and where to: below the mesh, which knows identities and methods, and there without one too. Callers
and callees are pods of this shop by their names; the rest is the release's to say: where DNS, the mesh, the ingress
and Prometheus are, and for each kind of infrastructure that the workload needs, its port and peers.
*/}}
{{- define "stoa-service.network" -}}
{{- $network := .Values.global.network -}}
{{- if $network.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels: {{- include "stoa-service.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- with include .callers . | trim }}
    - ports: [{port: {{ $.port.number }}}]
      from: {{- . | nindent 8 }}
    {{- end }}
    {{- with .metrics }}
    - ports: [{port: {{ .number }}}]
      from:
        {{- toYaml $network.monitoring | nindent 8 }}
        - {podSelector: {matchLabels: {app.kubernetes.io/name: ops, app.kubernetes.io/part-of: stoa}}}
    {{- end }}
  egress:
    {{- include "stoa-service.network.common" . | nindent 4 }}
    {{- with .Values.calls }}
    - ports: [{port: 9000}]
      to:
        {{- range . }}
        - {podSelector: {matchLabels: {app.kubernetes.io/name: {{ . }}, app.kubernetes.io/part-of: stoa}}}
        {{- end }}
    {{- end }}
    {{- if ne .Chart.Name "edge" }}
    # The edge has the keys that tokens are checked by.
    - ports: [{port: 8080}]
      to: [{podSelector: {matchLabels: {app.kubernetes.io/name: edge, app.kubernetes.io/part-of: stoa}}}]
    {{- end }}
    {{- range .Values.needs }}
    {{- with required (printf "global.infrastructure.%s says where it is, for %s" . $.Chart.Name) (get $.Values.global.infrastructure .) }}
    - ports: [{port: {{ .port }}}]
      to: {{- toYaml .peers | nindent 8 }}
    {{- end }}
    {{- end }}
{{- end }}
{{- end }}

{{/*
The callers that the contracts name, and operators' Jobs: who rebuilds a service is called by its identity, but lives in
one of their pods. What each of those pods may call is not said here but by its certificate, to the mesh or the service.
*/}}
{{- define "stoa-service.callers" -}}
{{- range append (keys .Values.callers | sortAlpha) "ops" }}
- {podSelector: {matchLabels: {app.kubernetes.io/name: {{ . }}, app.kubernetes.io/part-of: stoa}}}
{{- end }}
{{- end }}

{{/* Where every pod goes: to names, and to the control plane of the mesh. */}}
{{- define "stoa-service.network.common" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
  to: {{- toYaml .Values.global.network.dns | nindent 4 }}
{{- if .Values.global.mesh.enabled }}
- ports: [{port: 15012}]
  to: {{- toYaml .Values.global.network.mesh | nindent 4 }}
{{- end }}
{{- with .Values.global.network.egress }}
{{ toYaml . }}
{{- end }}
{{- end }}
