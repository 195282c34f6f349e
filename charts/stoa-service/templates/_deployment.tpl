{{- define "stoa-service.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "stoa-service.metadata" . | nindent 2 }}
  {{- with .wave }}
  annotations: {argocd.argoproj.io/sync-wave: {{ . | quote }}}
  {{- end }}
spec:
  {{- /* Who scales says how many there are: the autoscaler, or the Rollout, whose pods run in place of these. */}}
  {{- if not (or .Values.autoscaling.enabled .Values.rollout.enabled) }}
  replicas: {{ .Values.scale.min }}
  {{- end }}
  revisionHistoryLimit: 3
  # A new version that never gets ready takes nothing from the old one.
  strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  progressDeadlineSeconds: {{ add .Values.startSeconds 60 }}
  selector:
    matchLabels: {{- include "stoa-service.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "stoa-service.labels" . | nindent 8 }}
      annotations: {{- include "stoa-service.pod.annotations" . | nindent 8 }}
    spec:
      {{- include "stoa-service.pod" . | nindent 6 }}
      {{- /* To be told of everywhere, to finish what runs, and for workers to be ended by their parent. */}}
      terminationGracePeriodSeconds: {{ add .Values.settleSeconds .Values.drainSeconds 15 }}
      topologySpreadConstraints:
        {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - topologyKey: {{ . }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "stoa-service.selector" $ | nindent 14 }}
          matchLabelKeys: [pod-template-hash]
        {{- end }}
      containers:
        - name: {{ .Chart.Name }}
          {{- include "stoa-service.pod.container" . | nindent 10 }}
          {{- include .container . | nindent 10 }}
          # So long calls still come in, until everybody knows that this pod goes.
          lifecycle: {preStop: {sleep: {seconds: {{ .Values.settleSeconds }}}}}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- if .Values.secrets }}
            - {name: secrets, mountPath: /var/run/stoa/secrets, readOnly: true}
            {{- end }}
            {{- if not .Values.global.mesh.enabled }}
            - {name: tls, mountPath: /var/run/stoa/tls, readOnly: true}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
        {{- if .Values.secrets }}
        - name: secrets
          secret: {secretName: {{ .Chart.Name }}, defaultMode: 0440}
        {{- end }}
        {{- if not .Values.global.mesh.enabled }}
        - {{- include "stoa-service.pod.tls" .Chart.Name | nindent 10 }}
        {{- end }}
{{- end }}

{{/* A kubelet has no certificate: in a mesh the proxy asks for it, and else there is a port for it. */}}
{{- define "stoa-service.health-port" -}}
{{ ternary .port.number 9001 .Values.global.mesh.enabled }}
{{- end }}

{{/* What is the container's own in the pod of a service. */}}
{{- define "stoa-service.container" -}}
env:
  {{- /* Kubernetes would take $(NAME) for another variable. */}}
  {{- range $name, $value := include "stoa-service.variables" . | fromYaml }}
  - {name: {{ $name }}, value: {{ $value | replace "$" "$$" | quote }}}
  {{- end }}
  {{- /* A container that is started again has the name of the one before: its consumer takes its place at once. */}}
  - name: STOA_GROUP_INSTANCE_ID
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
ports:
  - {name: {{ .port.name }}, containerPort: {{ .port.number }}}
  - {name: {{ .metrics.name }}, containerPort: {{ .metrics.number }}}
{{- /* It listens once its stores are there and its database is migrated, which may take a while. */}}
startupProbe:
  grpc: {port: {{ include "stoa-service.health-port" . }}, service: liveness}
  periodSeconds: 1
  failureThreshold: {{ .Values.startSeconds }}
livenessProbe:
  grpc: {port: {{ include "stoa-service.health-port" . }}, service: liveness}
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  grpc: {port: {{ include "stoa-service.health-port" . }}}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}
