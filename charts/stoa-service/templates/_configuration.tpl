{{/*
The variables of a service, beside its secrets: what follows from where it runs and from where others are, and the
settings of the release, which come last.

They stand in the pods' template and in no ConfigMap: each version keeps its own, so that a pod of the old one that is
started again while the new one comes, or a version that is taken back, finds what it was released with.
*/}}
{{- define "stoa-service.variables" -}}
{{- $mesh := .Values.global.mesh.enabled -}}
{{- $variables := dict
  "STOA_HOST" (ternary "127.0.0.1" "0.0.0.0" $mesh)
  "STOA_PORT" (toString .port.number)
  "STOA_METRICS_HOST" (ternary "127.0.0.1" "0.0.0.0" $mesh)
  "STOA_METRICS_PORT" (toString .metrics.number)
  "STOA_SPIFFE_PREFIX" (include "stoa-service.identities" .)
  "STOA_SECRETS_DIR" "/var/run/stoa/secrets"
  "STOA_WORKERS" (toString .Values.workers)
  "STOA_DRAIN_SECONDS" (toString .Values.drainSeconds)
  "STOA_JWKS_URL" "http://edge:8080/api/v1/auth/jwks"
-}}
{{- if $mesh }}
{{- $_ := set $variables "STOA_SIDECAR_MTLS" "true" }}
{{- else }}
{{- $_ := set $variables "STOA_TLS_DIR" "/var/run/stoa/tls" }}
{{- $_ := set $variables "STOA_HEALTH_PORT" (include "stoa-service.health-port" .) }}
{{- end }}
{{- range .Values.calls }}
{{- $_ := set $variables (printf "STOA_%s_TARGET" (upper .)) (printf "%s:9000" .) }}
{{- end }}
{{- range $setting, $address := .Values.addresses }}
{{- with include "stoa-service.address" (list $ $address.of) }}
{{- $_ := set $variables (printf "STOA_%s" (upper $setting)) (printf $address.form .) }}
{{- end }}
{{- end }}
{{- range $setting, $value := .Values.settings }}
{{- $_ := set $variables (printf "STOA_%s" (upper $setting)) $value }}
{{- end }}
{{- toYaml $variables }}
{{- end }}

{{/* What a Job that rebuilds something as the service (charts/ops) is told: the same. */}}
{{- define "stoa-service.configuration" -}}
{{- if .Values.replay -}}
apiVersion: v1
kind: ConfigMap
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
data: {{- include "stoa-service.variables" . | nindent 2 }}
{{- end }}
{{- end }}
