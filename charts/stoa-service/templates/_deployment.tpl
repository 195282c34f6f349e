{{- define "stoa-service.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  {{- /* Who scales says how many there are: the autoscaler, or the Rollout, which runs the pods in the Deployment's place. */}}
  {{- if not (or .Values.autoscaling.enabled .Values.rollout.enabled) }}
  replicas: {{ .Values.scale.min }}
  {{- end }}
  revisionHistoryLimit: 3
  # A new version that never gets ready takes nothing from the old one.
  strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  progressDeadlineSeconds: {{ add .Values.startSeconds 60 }}
  selector:
    matchLabels: {{- include "stoa-service.selector" . | nindent 6 }}
  template: {{- include "stoa-service.pod" . | nindent 4 }}
{{- end }}

{{- define "stoa-service.pod" -}}
metadata:
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
  annotations:
    {{- /* Pods read their configuration as they start: another one is another version of the pod. */}}
    {{- with .configuration }}
    checksum/configuration: {{ include . $ | sha256sum }}
    {{- end }}
    kubectl.kubernetes.io/default-container: {{ .Chart.Name }}
    {{- if .Values.global.mesh.enabled }}
    # The proxy is there before the first call goes out; it asks the probes at the address that the workload has.
    proxy.istio.io/config: |
      holdApplicationUntilProxyStarts: true
      proxyMetadata: {REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION: "true"}
    {{- end }}
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ .Chart.Name }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- /* To be told of everywhere, to finish what runs, and to be let go by a process that watches workers. */}}
  terminationGracePeriodSeconds: {{ add .Values.settleSeconds .Values.drainSeconds 15 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {type: RuntimeDefault}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "stoa-service.selector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  containers:
    - name: {{ .Chart.Name }}
      image: {{ include "stoa-service.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      {{- include .container . | nindent 6 }}
      # So long calls still come in, until everybody knows that this pod goes.
      lifecycle: {preStop: {sleep: {seconds: {{ .Values.settleSeconds }}}}}
      {{- $memory := mul .Values.memory_mb .Values.workers }}
      resources:
        requests: {cpu: {{ .Values.cpu.request }}, memory: {{ $memory }}Mi}
        # What it may take is kept free for it; twice that is a leak.
        limits: {cpu: {{ .Values.cpu.limit | quote }}, memory: {{ mul 2 $memory }}Mi}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- if .Values.secrets }}
    - name: secrets
      secret: {secretName: {{ .Chart.Name }}, defaultMode: 0440}
    {{- end }}
    {{- if not .Values.global.mesh.enabled }}
    - name: tls
      secret:
        secretName: {{ .Chart.Name }}-tls
        defaultMode: 0440
        items: [{key: tls.crt, path: cert.pem}, {key: tls.key, path: key.pem}, {key: ca.crt, path: ca.pem}]
    {{- end }}
{{- end }}

{{- define "stoa-service.mounts" -}}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.secrets }}
  - {name: secrets, mountPath: /var/run/stoa/secrets, readOnly: true}
  {{- end }}
  {{- if not .Values.global.mesh.enabled }}
  - {name: tls, mountPath: /var/run/stoa/tls, readOnly: true}
  {{- end }}
{{- end }}

{{/* The container of a service, but for what all workloads have in common. */}}
{{- define "stoa-service.container" -}}
envFrom:
  - configMapRef: {name: {{ .Chart.Name }}}
env:
  {{- /* A container that is started again has the name of the one before: its consumer takes its place at once. */}}
  - name: STOA_GROUP_INSTANCE_ID
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
ports:
  - {name: {{ .port.name }}, containerPort: {{ .port.number }}}
  - {name: {{ .metrics.name }}, containerPort: {{ .metrics.number }}}
{{- /* It listens once its stores are there and its database is migrated, which may take a while. */}}
startupProbe:
  grpc: {port: {{ .port.number }}, service: liveness}
  periodSeconds: 2
  failureThreshold: {{ div .Values.startSeconds 2 }}
livenessProbe:
  grpc: {port: {{ .port.number }}, service: liveness}
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  grpc: {port: {{ .port.number }}}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{ include "stoa-service.mounts" . }}
{{- end }}
