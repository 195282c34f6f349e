{{/* Before anything of a release is changed: who does it, then topics and schemas, then the databases. */}}
{{- define "ops.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-delete-policy: before-hook-creation
helm.sh/hook-weight: {{ . | quote }}
{{- end }}

{{- define "ops.service-account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "stoa-service.metadata" . | nindent 2 }}
  annotations:
    {{- include "ops.hook" "-10" | nindent 4 }}
    {{- with .Values.serviceAccount.annotations }}{{ toYaml . | nindent 4 }}{{ end }}
automountServiceAccountToken: false
{{- end }}

{{/* Topics and event schemas that a service declares and that are missing. */}}
{{- define "ops.deploy" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: deploy
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
  annotations: {{- include "ops.hook" "-5" | nindent 4 }}
spec: {{- include "ops.job" (list . (list "deploy" "--replication" (toString .Values.replication))) | nindent 2 }}
{{- end }}

{{/* A service migrates as it starts, too; one that fails here leaves the old version alone. */}}
{{- define "ops.migrate" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: migrate
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
  annotations: {{- include "ops.hook" "-4" | nindent 4 }}
spec:
  backoffLimit: 2
  ttlSecondsAfterFinished: 86400
  template:
    {{- include "ops.pod" . | nindent 4 }}
      containers:
        {{- range .Values.databases }}
        - name: {{ . }}
          args: [migrate, {{ . }}]
          env:
            - {name: STOA_SECRETS_DIR, value: /var/run/stoa/secrets}
          {{- include "stoa-service.pod.container" $ | nindent 10 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: {{ . }}, mountPath: /var/run/stoa/secrets, readOnly: true}
        {{- end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
        {{- range .Values.databases }}
        - name: {{ . }}
          secret: {secretName: {{ . }}, defaultMode: 0440}
        {{- end }}
{{- end }}

{{- define "ops.audit" -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: audit
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
spec:
  schedule: {{ .Values.audit.schedule | quote }}
  suspend: {{ .Values.audit.suspend }}
  concurrencyPolicy: Forbid
  jobTemplate:
    spec: {{- include "ops.job" (list . (list "audit" "--wait" "90")) | nindent 6 }}
{{- end }}

{{/*
What a service's reads come from is rebuilt by the service's own program, as the service: with its identity, its
configuration and its secrets. Never by itself: kubectl create job --from=cronjob/replay-order replay-now
*/}}
{{- define "ops.replays" -}}
{{- range $service := .Values.replays }}
---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: replay-{{ $service }}
  labels: {{- include "stoa-service.labels" $ | nindent 4 }}
spec:
  schedule: "@yearly"
  suspend: true
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      backoffLimit: 0
      ttlSecondsAfterFinished: 86400
      template:
        {{- include "ops.pod" (set (omit $ "account") "account" $service) | nindent 8 }}
          containers:
            - name: {{ $.Chart.Name }}
              args: [replay, {{ $service }}]
              envFrom:
                - configMapRef: {name: {{ $service }}}
              {{- include "stoa-service.pod.container" $ | nindent 14 }}
              volumeMounts:
                - {name: tmp, mountPath: /tmp}
                - {name: secrets, mountPath: /var/run/stoa/secrets, readOnly: true}
                {{- if not $.Values.global.mesh.enabled }}
                - {name: tls, mountPath: /var/run/stoa/tls, readOnly: true}
                {{- end }}
          volumes:
            - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
            - name: secrets
              secret: {secretName: {{ $service }}, defaultMode: 0440}
            {{- if not $.Values.global.mesh.enabled }}
            - {{- include "stoa-service.pod.tls" $service | nindent 14 }}
            {{- end }}
{{- end }}
{{- end }}

{{/* A Job of a command, with all that an operator's tools know of the shop: list CONTEXT ARGUMENTS. */}}
{{- define "ops.job" -}}
{{- $ := first . -}}
backoffLimit: 2
ttlSecondsAfterFinished: 86400
template:
  {{- include "ops.pod" $ | nindent 2 }}
    containers:
      - name: {{ $.Chart.Name }}
        args: {{- toYaml (last .) | nindent 10 }}
        env:
          - {name: STOA_OPS_DIR, value: /var/run/stoa/operator}
        {{- include "stoa-service.pod.container" $ | nindent 8 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
          - {name: operator, mountPath: /var/run/stoa/operator, readOnly: true}
    volumes:
      - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
      - name: operator
        secret: {secretName: operator, defaultMode: 0440}
{{- end }}

{{- define "ops.pod" -}}
metadata:
  labels: {{- include "stoa-service.labels" . | nindent 4 }}
  annotations: {{- include "stoa-service.pod.annotations" . | nindent 4 }}
spec:
  restartPolicy: Never
  {{- include "stoa-service.pod" . | nindent 2 }}
{{- end }}
