{{/* What pods of the shop have in common, whatever runs in them. */}}
{{- define "stoa-service.pod.annotations" -}}
kubectl.kubernetes.io/default-container: {{ .Chart.Name }}
{{- if .Values.global.mesh.enabled }}
# The proxy is there before the first call goes out and after the last; it asks the probes where the workload listens.
sidecar.istio.io/nativeSidecar: "true"
proxy.istio.io/config: |
  holdApplicationUntilProxyStarts: true
  proxyMetadata: {{ mustMerge (dict "REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION" "true") .Values.global.mesh.proxyMetadata | toJson }}
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "stoa-service.pod" -}}
serviceAccountName: {{ .account | default .Chart.Name }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The volume with the certificate of a workload, by its name, under the names that the chassis knows. */}}
{{- define "stoa-service.pod.tls" -}}
name: tls
secret:
  secretName: {{ . }}-tls
  defaultMode: 0440
  items: [{key: tls.crt, path: cert.pem}, {key: tls.key, path: key.pem}, {key: ca.crt, path: ca.pem}]
{{- end }}

{{- define "stoa-service.pod.container" -}}
image: {{ include "stoa-service.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- $memory := mul .Values.memory_mb .Values.workers }}
resources:
  requests: {cpu: {{ .Values.cpu.request }}, memory: {{ $memory }}Mi}
  # What it may take is kept free for it; twice that is a leak.
  limits: {cpu: {{ .Values.cpu.limit | quote }}, memory: {{ mul 2 $memory }}Mi}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
