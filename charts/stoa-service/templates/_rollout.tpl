{{/*
Argo Rollouts in the place of the Deployment's own rolling update: it takes the pods' template from the Deployment and
scales that down as its own pods come up. Of the calls a new version first gets those alone that ask for it by the header
`x-canary: <service>`, then a growing share. At each step what it answers is measured: if too much fails or takes too
long, the old version has all calls again, and the new one goes.
*/}}
{{- define "stoa-service.rollout" -}}
{{- if .Values.rollout.enabled -}}
{{- $name := .Chart.Name -}}
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  {{- if not .Values.autoscaling.enabled }}
  replicas: {{ .Values.scale.min }}
  {{- end }}
  revisionHistoryLimit: 3
  progressDeadlineSeconds: {{ add .Values.startSeconds 60 }}
  progressDeadlineAbort: true
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}, scaleDown: progressively}
  strategy:
    canary:
      maxUnavailable: 0
      maxSurge: 1
      {{- if .Values.global.mesh.enabled }}
      trafficRouting:
        managedRoutes: [{name: asked-for}]
        istio:
          virtualService: {name: {{ $name }}, routes: [all]}
          destinationRule: {name: {{ $name }}, stableSubsetName: stable, canarySubsetName: canary}
      {{- end }}
      steps:
        {{- if .Values.global.mesh.enabled }}
        - setCanaryScale: {replicas: 1}
        - setHeaderRoute:
            name: asked-for
            match: [{headerName: x-canary, headerValue: {exact: {{ $name }}}}]
        - pause: {duration: {{ .Values.rollout.pause }}}
        - setCanaryScale: {matchTrafficWeight: true}
        {{- end }}
        {{- range .Values.rollout.weights }}
        - setWeight: {{ . }}
        - analysis:
            templates: [{templateName: {{ $name }}}]
            args:
              - name: version
                valueFrom: {podTemplateHashValue: Latest}
        {{- end }}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {{- include "stoa-service.metadata" . | nindent 2 }}
spec:
  args: [{name: version}]
  metrics:
    {{- range $metric := list "successRate" "latency" }}
    {{- $measured := get $.Values.rollout.analysis $metric }}
    {{- $good := printf "%s %v" (ternary ">=" "<=" (eq $metric "successRate")) $measured.limit }}
    - name: {{ kebabcase $metric }}
      initialDelay: {{ $.Values.rollout.analysis.interval }}
      interval: {{ $.Values.rollout.analysis.interval }}
      count: {{ $.Values.rollout.analysis.count }}
      # Without a call there is nothing to be sure of: then somebody looks.
      successCondition: len(result) > 0 && !isNaN(result[0]) && result[0] {{ $good }}
      failureCondition: len(result) > 0 && !isNaN(result[0]) && !(result[0] {{ $good }})
      failureLimit: {{ $.Values.rollout.analysis.failures }}
      inconclusiveLimit: {{ $.Values.rollout.analysis.failures }}
      provider:
        prometheus:
          address: {{ $.Values.rollout.analysis.prometheus }}
          query: {{ $measured.query | quote }}
    {{- end }}
{{- end }}
{{- end }}
