{{/*
One process uses one core at most, so what is compared is the core time of a pod, not a share of what it has asked for.
Calls in flight are a metric of the service itself: the cluster needs an adapter for it (Prometheus').
*/}}
{{- define "stoa-service.scaling" -}}
{{- with .Values.autoscaling }}
{{- if .enabled -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{- include "stoa-service.metadata" $ | nindent 2 }}
spec:
  {{- if $.Values.rollout.enabled }}
  scaleTargetRef: {apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: {{ $.Chart.Name }}}
  {{- else }}
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $.Chart.Name }}}
  {{- end }}
  minReplicas: {{ $.Values.scale.min }}
  maxReplicas: {{ $.Values.scale.max }}
  metrics:
    - type: ContainerResource
      containerResource:
        name: cpu
        container: {{ $.Chart.Name }}
        target: {type: AverageValue, averageValue: {{ .cpu | quote }}}
    {{- if and .rpcsInFlight $.metrics }}
    - type: Pods
      pods:
        metric: {name: stoa_rpc_in_flight}
        target: {type: AverageValue, averageValue: {{ .rpcsInFlight | quote }}}
    {{- end }}
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 0
      policies: [{type: Percent, value: 100, periodSeconds: 15}]
    scaleDown:
      stabilizationWindowSeconds: {{ .calmSeconds }}
      policies: [{type: Pods, value: 1, periodSeconds: 30}]
{{- end }}
{{- end }}
{{- end }}

{{/* A node that is drained takes one pod at a time; one that is not ready is in nobody's way. */}}
{{- define "stoa-service.disruption" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "stoa-service.selector" . | nindent 6 }}
{{- end }}
