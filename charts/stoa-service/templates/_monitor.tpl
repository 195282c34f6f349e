{{- define "stoa-service.monitor" -}}
{{- with .Values.global.monitoring }}
{{- if and .enabled $.metrics -}}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ $.Chart.Name }}
  labels: {{- include "stoa-service.labels" $ | nindent 4 }}
    {{- with .labels }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  selector:
    matchLabels: {{- include "stoa-service.selector" $ | nindent 6 }}
  # The version of a pod, by which its metrics are told from those of others while one takes the place of another.
  podTargetLabels: [rollouts-pod-template-hash]
  endpoints:
    - port: {{ $.metrics.name }}
      path: /metrics
      interval: {{ .interval }}
      {{- if $.Values.global.mesh.enabled }}
      # With the certificate that a sidecar has written for Prometheus; a pod's proves an identity, no host's name.
      scheme: https
      tlsConfig:
        caFile: {{ .certificates }}/root-cert.pem
        certFile: {{ .certificates }}/cert-chain.pem
        keyFile: {{ .certificates }}/key.pem
        insecureSkipVerify: true
      {{- end }}
{{- end }}
{{- end }}
{{- end }}
