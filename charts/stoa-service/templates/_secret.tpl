{{/*
Where the release says so, External Secrets copies what the declaration names from the store of secrets (OpenBao, AWS
Secrets Manager) to the Secret of the workload. Else somebody else puts it there: in tests, `stoa`.
*/}}
{{- define "stoa-service.external-secret" -}}
{{- with .Values.global.secrets.external }}
{{- if and .enabled $.Values.secrets -}}
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {{- include "stoa-service.metadata" $ | nindent 2 }}
spec:
  refreshInterval: {{ .refreshInterval }}
  secretStoreRef: {{- toYaml .store | nindent 4 }}
  target: {name: {{ $.Chart.Name }}}
  data:
    {{- range $.Values.secrets }}
    - secretKey: {{ . }}
      remoteRef: {key: {{ $.Values.global.secrets.external.path }}/{{ $.Chart.Name }}, property: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}
