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
  endpoints:
    - {port: {{ $.metrics.name }}, path: /metrics, interval: {{ .interval }}}
{{- end }}
{{- end }}
{{- end }}
