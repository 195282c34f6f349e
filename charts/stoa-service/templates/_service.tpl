{{- define "stoa-service.service-account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "stoa-service.metadata" . | nindent 2 }}
  {{- with .Values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}

{{- define "stoa-service.service" -}}
apiVersion: v1
kind: Service
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  {{- if not .Values.global.mesh.enabled }}
  # Callers know all instances and spread their calls: one connection carries many, so the kernel could not.
  clusterIP: None
  {{- end }}
  selector: {{- include "stoa-service.selector" . | nindent 4 }}
  ports:
    {{- range compact (list .port .metrics) }}
    - {name: {{ .name }}, port: {{ .number }}, targetPort: {{ .name }}}
    {{- end }}
{{- end }}
