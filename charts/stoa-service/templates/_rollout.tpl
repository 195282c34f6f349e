{{/*
Argo Rollouts in the place of the Deployment's own rolling update: it takes the pods' template from the Deployment and
scales that down as its own pods come up. `rollout.canary` has the steps, the traffic's routing and the analysis.
*/}}
{{- define "stoa-service.rollout" -}}
{{- if .Values.rollout.enabled -}}
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  {{- if not .Values.autoscaling.enabled }}
  replicas: {{ .Values.scale.min }}
  {{- end }}
  revisionHistoryLimit: 3
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: {{ .Chart.Name }}, scaleDown: progressively}
  strategy:
    canary:
      maxUnavailable: 0
      maxSurge: 1
      {{- with .Values.rollout.canary }}{{ toYaml . | nindent 6 }}{{ end }}
{{- end }}
{{- end }}
