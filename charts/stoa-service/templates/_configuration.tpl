{{/*
The variables of a service, beside its secrets: what follows from where it runs and from where others are, and the
settings of the release, which come last.
*/}}
{{- define "stoa-service.configuration" -}}
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
{{- end -}}
apiVersion: v1
kind: ConfigMap
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
data: {{- toYaml $variables | nindent 2 }}
{{- end }}
