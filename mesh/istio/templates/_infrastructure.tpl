{{/*
What the shop stands on, as the mesh sees it: what lies outside of the cluster is named, or it could not be called; and
what is spoken to by HTTP in plain text gets each request once. By itself a proxy repeats what it holds for not done (in
older versions of Istio whatever was answered 503), and to a carrier or a payment gateway that may be a second booking.
*/}}
{{- define "stoa-mesh.infrastructure" -}}
{{- range $name, $server := .Values.global.infrastructure }}
{{- $hosts := $server.egress | default (list $server.host) }}
{{- range $index, $host := $hosts }}
{{- $reachable := include "stoa-service.mesh.reachable" (list $ $host) }}
{{- if eq $reachable (printf "./%s" $host) }}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: {{ $name }}{{ if $index }}-{{ $index }}{{ end }}
  labels: {{- include "stoa-service.labels" $ | nindent 4 }}
spec:
  hosts: [{{ $host | quote }}]
  exportTo: ["."]
  location: MESH_EXTERNAL
  resolution: {{ if hasPrefix "*" $host }}NONE{{ else }}DNS{{ end }}
  ports:
    - {number: {{ $server.port }}, name: {{ $server.protocol | default "tcp" | lower }}-{{ $name }}, protocol: {{ $server.protocol | default "TCP" | upper }}}
{{- else if eq ($server.protocol | default "tcp") "http" }}
{{- $service := last (splitList "/" $reachable) }}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: {{ $name }}{{ if $index }}-{{ $index }}{{ end }}
  labels: {{- include "stoa-service.labels" $ | nindent 4 }}
spec:
  hosts: [{{ $service }}]
  exportTo: ["."]
  http:
    - name: all
      route:
        - destination: {host: {{ $service }}}
      retries: {attempts: 0}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
